"""`python train.py`: see `python train.py --help`."""

from clvp_train.entry import enter

if __name__ == "__main__":
    enter("train")
