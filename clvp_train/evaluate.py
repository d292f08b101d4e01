"""`python -m clvp_train.evaluate`"""

from clvp_train.entry import enter

if __name__ == "__main__":
    enter("evaluate")
