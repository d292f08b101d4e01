"""`python -m clvp_train.push`"""

from clvp_train.entry import enter

if __name__ == "__main__":
    enter("push", "clvp_train.publish")
