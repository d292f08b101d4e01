"""What a checkpoint is judged by."""

from clvp_train.metrics.bootstrap import Interval, interval, median_interval
from clvp_train.metrics.breakdown import by_label, by_quartile
from clvp_train.metrics.frechet import clvp_score, frechet_distance
from clvp_train.metrics.reranking import Candidates, of_picks, rerank
from clvp_train.metrics.retrieval import (
    DIRECTIONS,
    MODE,
    PRIMARY,
    RetrievalRanks,
    rank_summary,
    retrieval_ranks,
    retrieval_summary,
)
from clvp_train.metrics.scores import (
    SCORE_TABLE_FILE,
    auc,
    mismatched,
    percentile,
    read_score_table,
    roc,
    score_table,
    win_rate,
)

__all__ = [
    "DIRECTIONS",
    "MODE",
    "PRIMARY",
    "SCORE_TABLE_FILE",
    "Candidates",
    "Interval",
    "RetrievalRanks",
    "auc",
    "by_label",
    "by_quartile",
    "clvp_score",
    "frechet_distance",
    "interval",
    "median_interval",
    "mismatched",
    "of_picks",
    "percentile",
    "rank_summary",
    "read_score_table",
    "rerank",
    "retrieval_ranks",
    "retrieval_summary",
    "roc",
    "score_table",
    "win_rate",
]
