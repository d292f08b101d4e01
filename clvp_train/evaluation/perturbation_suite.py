"""Perturbed copies of held-out pairs: how often does the matched pair score higher than its copy?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from clvp_train.corpus import text_key
from clvp_train.data.perturbations import FOREIGN, PERTURBATIONS, foreign_tail
from clvp_train.evaluation.held_out import CandidateSets, HeldOut
from clvp_train.evaluation.text_perturbations import SINGLE_WORD, TEXT_PERTURBATIONS, text_of, words_of


@dataclass(frozen=True)
class PerturbationSuite:
    """Settings of the perturbations, in the config group `perturbations`."""

    num_pairs: int = 1000  # held-out pairs at most, drawn at random; 0 skips the part
    shares: Sequence[float] = (0.1, 0.25, 0.5)  # of the codes or words that are perturbed
    seed: int = 0


@dataclass(frozen=True)
class PerturbedPairs:
    """One kind of perturbation of one size, in all pairs that it applies to."""

    side: Literal["speech", "text"]
    name: str
    share: float | None  # None: one word, whatever the length
    rows: list[int] = field(default_factory=list)  # of the pairs
    perturbed: list[np.ndarray] = field(default_factory=list)  # their perturbed codes or text tokens

    def add(self, row: int, perturbed: np.ndarray) -> None:
        self.rows.append(row)
        self.perturbed.append(perturbed)


def perturb_codes(pairs: HeldOut, suite: PerturbationSuite, limit: int | None = None) -> list[PerturbedPairs]:
    """Applies the perturbations of `clvp_train.data.perturbations` to the codes.

    If the model sees at most `limit` codes, pairs whose perturbation is behind that limit are left out.
    """
    rows = _sample_rows(len(pairs), suite)
    perturbations = [PerturbedPairs("speech", name, share) for name in PERTURBATIONS for share in suite.shares]
    for perturbation in perturbations if len(pairs) > 1 else ():
        rng = np.random.default_rng(suite.seed)
        for row in rows:
            other = pairs.codes[(row + 1 + int(rng.integers(len(pairs) - 1))) % len(pairs)]
            perturbed = PERTURBATIONS[perturbation.name](
                pairs.codes[row], rng, perturbation.share, other if perturbation.name in FOREIGN else None
            )
            if limit is None or not np.array_equal(perturbed[:limit], pairs.codes[row]):
                perturbation.add(row, perturbed)
    return [perturbation for perturbation in perturbations if perturbation.rows]


def change_voices(pairs: HeldOut, candidates: CandidateSets, suite: PerturbationSuite) -> list[PerturbedPairs]:
    """Replaces the end of the codes by those of a candidate of the same text in another voice.

    The list is empty if no text has candidates in another voice than its pair.
    """
    sets, perturbations = candidates.pairs, [PerturbedPairs("speech", "other_voice", share) for share in suite.shares]
    row_of = {text_key(text): row for row, text in enumerate(pairs.texts)}
    for perturbation in perturbations:
        rng = np.random.default_rng(suite.seed)
        for start, size in zip(candidates.starts, candidates.sizes):
            row = row_of.get(text_key(sets.texts[start]))
            if row is None:
                continue
            others = [index for index in range(start, start + size) if sets.voices[index] != pairs.voices[row]]
            if others:
                other = sets.codes[others[int(rng.integers(len(others)))]]
                perturbation.add(row, foreign_tail(pairs.codes[row], rng, perturbation.share, other))
    return [perturbation for perturbation in perturbations if perturbation.rows]


def perturb_texts(
    pairs: HeldOut, suite: PerturbationSuite, tokenize: Callable[[str], list[int]]
) -> list[PerturbedPairs]:
    """Applies the perturbations of `clvp_train.evaluation.text_perturbations` to the words.

    Texts that a perturbation does not apply to, or whose tokens stay the same, are left out.
    """
    rows = _sample_rows(len(pairs), suite)
    words = {row: words_of(pairs.texts[row]) for row in rows}
    perturbations = []
    for name, perturb in TEXT_PERTURBATIONS.items():
        for share in (None,) if name in SINGLE_WORD else suite.shares:
            perturbation, rng = PerturbedPairs("text", name, share), np.random.default_rng(suite.seed)
            for index, row in enumerate(rows):
                other = words[rows[(index + 1 + int(rng.integers(max(1, len(rows) - 1)))) % len(rows)]]
                perturbed = perturb(words[row], rng, share or 0.0, other)
                ids = np.array(tokenize(text_of(perturbed, pairs.texts[row])) if perturbed else [], dtype=np.int64)
                if len(ids) and not np.array_equal(ids, pairs.input_ids[row]):
                    perturbation.add(row, ids)
            perturbations.append(perturbation)
    return [perturbation for perturbation in perturbations if perturbation.rows]


def _sample_rows(size: int, suite: PerturbationSuite) -> list[int]:
    return np.random.default_rng(suite.seed).permutation(size)[: suite.num_pairs].tolist()
