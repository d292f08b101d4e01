"""`python -m clvp_train.demo`"""

from clvp_train.entry import enter

if __name__ == "__main__":
    enter("demo", "clvp_train.demo.serving")
