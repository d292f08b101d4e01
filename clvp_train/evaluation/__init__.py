"""What a checkpoint can and cannot tell apart."""

from clvp_train.evaluation.compare import compare
from clvp_train.evaluation.embed import Embedder
from clvp_train.evaluation.evaluation_data import EvaluationData
from clvp_train.evaluation.evaluator import Evaluation, evaluate
from clvp_train.evaluation.faults import FaultSuite
from clvp_train.evaluation.prepare import RerankConfig, add_candidates, add_word_errors, prepare
from clvp_train.evaluation.word_errors import check_recogniser

__all__ = [
    "Embedder",
    "Evaluation",
    "EvaluationData",
    "FaultSuite",
    "RerankConfig",
    "add_candidates",
    "add_word_errors",
    "check_recogniser",
    "compare",
    "evaluate",
    "prepare",
]
