"""`python -m clvp_train.generate`"""

from clvp_train.app import generate

if __name__ == "__main__":
    generate()
