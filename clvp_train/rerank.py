"""`python -m clvp_train.rerank`"""

from clvp_train.entry import enter

if __name__ == "__main__":
    enter("rerank_candidates", "clvp_train.reranking")
