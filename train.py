"""`python train.py`: see `python train.py --help`."""

from clvp_train.train import main

if __name__ == "__main__":
    main()
