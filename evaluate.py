"""`python evaluate.py`: see `python evaluate.py --help`."""

from clvp_train.entry import enter

if __name__ == "__main__":
    enter("evaluate")
