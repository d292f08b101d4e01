"""`python -m clvp_train.demo`"""

from clvp_train.demo.serving import demo

if __name__ == "__main__":
    demo()
