"""`python -m clvp_train.train_tokenizer`"""

from clvp_train.app import train_tokenizer

if __name__ == "__main__":
    train_tokenizer()
