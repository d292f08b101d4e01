"""`python train.py`: see `python train.py --help`."""

from clvp_train.app import train

if __name__ == "__main__":
    train()
