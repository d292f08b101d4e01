"""`python -m clvp_train.train`"""

from clvp_train.app import train

if __name__ == "__main__":
    train()
