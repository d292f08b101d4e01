"""`python evaluate.py`: see `python evaluate.py --help`."""

from clvp_train.evaluate import main

if __name__ == "__main__":
    main()
