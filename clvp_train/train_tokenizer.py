"""`python -m clvp_train.train_tokenizer`"""

from clvp_train.entry import enter

if __name__ == "__main__":
    enter("train_tokenizer")
