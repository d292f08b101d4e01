"""`python -m clvp_train.push`"""

from clvp_train.publish import push

if __name__ == "__main__":
    push()
