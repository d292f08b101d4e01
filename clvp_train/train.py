"""`python -m clvp_train.train`"""

from clvp_train.entry import enter

if __name__ == "__main__":
    enter("train")
