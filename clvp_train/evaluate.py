"""`python -m clvp_train.evaluate`"""

from clvp_train.app import evaluate

if __name__ == "__main__":
    evaluate()
