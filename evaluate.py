"""`python evaluate.py`: see `python evaluate.py --help`."""

from clvp_train.app import evaluate

if __name__ == "__main__":
    evaluate()
