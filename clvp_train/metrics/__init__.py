"""Metrics: retrieval, scores, re-ranking and bootstrap intervals."""

from clvp_train.metrics.bootstrap import Interval, interval, median_interval
from clvp_train.metrics.frechet import clvp_score, frechet_distance
from clvp_train.metrics.mel_distance import mel_distances
from clvp_train.metrics.reranking import JUDGES, CandidateScores, Judge, picked_values, reranking_metrics
from clvp_train.metrics.retrieval import (
    DIRECTIONS,
    PRIMARY,
    WRONG_VOICE,
    RetrievalRanks,
    by_label,
    by_quartile,
    mean_of_directions,
    rank_summary,
    retrieval_ranks,
    retrieval_summary,
)
from clvp_train.metrics.scores import (
    KINDS,
    LOG_PROBABILITY_WEIGHT,
    SCORE_TABLE_FILE,
    auc,
    mismatched,
    percentile,
    read_score_table,
    roc,
    score_table,
    weight_of,
    win_rate,
)
from clvp_train.metrics.token_pairs import TokenPairs, count_token_pairs, read_token_pairs

__all__ = [
    "DIRECTIONS",
    "JUDGES",
    "KINDS",
    "LOG_PROBABILITY_WEIGHT",
    "PRIMARY",
    "SCORE_TABLE_FILE",
    "WRONG_VOICE",
    "CandidateScores",
    "Interval",
    "Judge",
    "RetrievalRanks",
    "TokenPairs",
    "auc",
    "by_label",
    "by_quartile",
    "clvp_score",
    "count_token_pairs",
    "frechet_distance",
    "interval",
    "mean_of_directions",
    "median_interval",
    "mel_distances",
    "mismatched",
    "percentile",
    "picked_values",
    "rank_summary",
    "read_score_table",
    "read_token_pairs",
    "reranking_metrics",
    "retrieval_ranks",
    "retrieval_summary",
    "roc",
    "score_table",
    "weight_of",
    "win_rate",
]
