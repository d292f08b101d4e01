"""What a checkpoint can and cannot tell apart."""

from clvp_train.evaluation.asr import check_recogniser
from clvp_train.evaluation.compare import compare
from clvp_train.evaluation.embed import Embedder
from clvp_train.evaluation.evaluation_data import EvaluationData
from clvp_train.evaluation.evaluator import Evaluation, evaluate
from clvp_train.evaluation.perturbation_suite import PerturbationSuite
from clvp_train.evaluation.prepare import RerankConfig, add_candidates, add_word_errors, prepare

__all__ = [
    "Embedder",
    "Evaluation",
    "EvaluationData",
    "PerturbationSuite",
    "RerankConfig",
    "add_candidates",
    "add_word_errors",
    "check_recogniser",
    "compare",
    "evaluate",
    "prepare",
]
