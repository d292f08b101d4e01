"""Evaluation of checkpoints on held-out pairs."""

from clvp_train.evaluation.asr import find_recognizer
from clvp_train.evaluation.asr_judge import ASRJudge
from clvp_train.evaluation.embedding import Embedder
from clvp_train.evaluation.evaluation_data import (
    EvaluationData,
    RerankConfig,
    Reranking,
    check_inputs,
    prepare,
    read_candidates,
)
from clvp_train.evaluation.evaluator import Evaluation, compare, evaluate_model
from clvp_train.evaluation.judges import add_judges, corpus_recordings, stored_recordings
from clvp_train.evaluation.perturbation_suite import PerturbationSuite

__all__ = [
    "ASRJudge",
    "Embedder",
    "Evaluation",
    "EvaluationData",
    "PerturbationSuite",
    "RerankConfig",
    "Reranking",
    "add_judges",
    "check_inputs",
    "compare",
    "corpus_recordings",
    "evaluate_model",
    "find_recognizer",
    "prepare",
    "read_candidates",
    "stored_recordings",
]
