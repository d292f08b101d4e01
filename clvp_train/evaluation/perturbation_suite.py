"""Controlled mistakes in held-out pairs: how often does the true pair outscore the perturbed one?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from clvp_train.corpus import text_key
from clvp_train.data.perturbations import FOREIGN, PERTURBATIONS, foreign_tail
from clvp_train.errors import UserError, check_number
from clvp_train.evaluation.held_out import CandidateSets, HeldOut
from clvp_train.evaluation.text_perturbations import TEXT_PERTURBATIONS, WHATEVER_THE_SHARE, text_of, words_of

Side = Literal["speech", "text"]


@dataclass(frozen=True)
class PerturbationSuite:
    """Which mistakes are made in how many pairs."""

    num_pairs: int = 1000  # held-out pairs at most, drawn at random; 0 leaves the suite out
    shares: Sequence[float] = (0.1, 0.25, 0.5)  # of the codes or words that go wrong
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("perturbations.num_pairs", self.num_pairs, 0)
        check_number("perturbations.seed", self.seed, 0)
        shares = tuple(self.shares) if isinstance(self.shares, Sequence) else (self.shares,)
        for share in shares:
            check_number("perturbations.shares", share, 0, whole=False)
        if not shares or not all(0 < share < 1 for share in shares):
            raise UserError(f"perturbations.shares={list(shares)}: set it to shares between 0 and 1, as in [0.1,0.5]")
        object.__setattr__(self, "shares", shares)


@dataclass(frozen=True)
class Perturbation:
    """One mistake at one size, in as many pairs as it can be made in."""

    side: Side
    name: str
    share: float | None  # None: of one place, whatever the length
    rows: list[int] = field(default_factory=list)  # of the pairs
    perturbed: list[np.ndarray] = field(default_factory=list)  # their codes or text tokens with the mistake


def in_codes(pairs: HeldOut, suite: PerturbationSuite, limit: int | None = None) -> list[Perturbation]:
    """Mistakes that an AR makes, see `clvp_train.data.perturbations`. Where `limit` codes are served at most, those that lie behind it are
    left out."""
    rows = _drawn(len(pairs), suite)
    found = [Perturbation("speech", name, share) for name in PERTURBATIONS for share in suite.shares]
    for perturbation in found if len(pairs) > 1 else ():
        rng = np.random.default_rng(suite.seed)
        for row in rows:
            other = pairs.codes[(row + 1 + int(rng.integers(len(pairs) - 1))) % len(pairs)]
            perturbed = PERTURBATIONS[perturbation.name](
                pairs.codes[row], rng, perturbation.share, other if perturbation.name in FOREIGN else None
            )
            if limit is None or not np.array_equal(perturbed[:limit], pairs.codes[row]):
                perturbation.rows.append(row)
                perturbation.perturbed.append(perturbed)
    return [perturbation for perturbation in found if perturbation.rows]


def in_voices(pairs: HeldOut, candidates: CandidateSets, suite: PerturbationSuite) -> list[Perturbation]:
    """The codes go on in another voice: from a place on, they are those of a candidate of the same text in that voice. Empty
    where no text was drawn in another voice than its pair."""
    sets, found = candidates.pairs, [Perturbation("speech", "other_voice", share) for share in suite.shares]
    row_of = {text_key(text): row for row, text in enumerate(pairs.texts)}
    for perturbation in found:
        rng = np.random.default_rng(suite.seed)
        for start, size in zip(candidates.starts, candidates.sizes):
            row = row_of.get(text_key(sets.texts[start]))
            if row is None:
                continue
            others = [place for place in range(start, start + size) if sets.voices[place] != pairs.voices[row]]
            if others:
                other = sets.codes[others[int(rng.integers(len(others)))]]
                perturbation.rows.append(row)
                perturbation.perturbed.append(foreign_tail(pairs.codes[row], rng, perturbation.share, other))
    return [perturbation for perturbation in found if perturbation.rows]


def in_texts(pairs: HeldOut, suite: PerturbationSuite, tokenize: Callable[[str], list[int]]) -> list[Perturbation]:
    """Mistakes in the words of a text, see `clvp_train.evaluation.text_perturbations`. Texts in which one cannot be made, or whose tokens stay
    the same, are left out of it."""
    rows = _drawn(len(pairs), suite)
    words = {row: words_of(pairs.texts[row]) for row in rows}
    found = []
    for name, spoil in TEXT_PERTURBATIONS.items():
        for share in (None,) if name in WHATEVER_THE_SHARE else suite.shares:
            perturbation, rng = Perturbation("text", name, share), np.random.default_rng(suite.seed)
            for place, row in enumerate(rows):
                other = words[rows[(place + 1 + int(rng.integers(max(1, len(rows) - 1)))) % len(rows)]]
                spoilt = spoil(words[row], rng, share or 0.0, other)
                ids = np.array(tokenize(text_of(spoilt, pairs.texts[row])) if spoilt else [], dtype=np.int64)
                if len(ids) and not np.array_equal(ids, pairs.input_ids[row]):
                    perturbation.rows.append(row)
                    perturbation.perturbed.append(ids)
            found.append(perturbation)
    return [perturbation for perturbation in found if perturbation.rows]


def _drawn(size: int, suite: PerturbationSuite) -> list[int]:
    return np.random.default_rng(suite.seed).permutation(size)[: suite.num_pairs].tolist()
