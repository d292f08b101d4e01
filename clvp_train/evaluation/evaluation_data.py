"""What checkpoints are judged by."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from clvp_train.evaluation.held_out import CandidateSets, HeldOut
from clvp_train.evaluation.perturbation_suite import Perturbation


@dataclass(frozen=True)
class EvaluationData:
    """The same for all checkpoints that are compared."""

    pairs: HeldOut  # one of each distinct text
    perturbations: Sequence[Perturbation] = ()  # in `pairs`
    candidates: CandidateSets | None = None
    word_errors: np.ndarray | None = None  # of each candidate, by an ASR model
    num_words: np.ndarray | None = None  # of each of the candidates' texts
    reference: HeldOut | None = None  # whose codes the pairs' are compared with, as a set
    left_out: dict[str, str] = field(default_factory=dict)  # part of the report: why it is not measured
