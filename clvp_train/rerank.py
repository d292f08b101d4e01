"""`python -m clvp_train.rerank`"""

from clvp_train.reranking import rerank

if __name__ == "__main__":
    rerank()
