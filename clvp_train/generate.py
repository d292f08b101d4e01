"""`python -m clvp_train.generate`"""

from clvp_train.entry import enter

if __name__ == "__main__":
    enter("generate")
