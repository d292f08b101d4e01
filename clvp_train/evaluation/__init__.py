"""Evaluation of checkpoints on held-out pairs."""

from clvp_train.evaluation.asr import check_recognizer
from clvp_train.evaluation.asr_judge import ASRJudge
from clvp_train.evaluation.embedding import Embedder
from clvp_train.evaluation.evaluation_data import (
    EvaluationData,
    RerankConfig,
    add_candidates,
    add_word_errors,
    prepare,
)
from clvp_train.evaluation.evaluator import Evaluation, compare, evaluate_model
from clvp_train.evaluation.perturbation_suite import PerturbationSuite

__all__ = [
    "ASRJudge",
    "Embedder",
    "Evaluation",
    "EvaluationData",
    "PerturbationSuite",
    "RerankConfig",
    "add_candidates",
    "add_word_errors",
    "check_recognizer",
    "compare",
    "evaluate_model",
    "prepare",
]
