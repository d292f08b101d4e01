"""Perturbations: speech codes with an error that an autoregressive model makes, and the hard negatives made of them. Shapes: S
codes.

A perturbation maps the codes of a sentence to different codes, at least one, without changing its argument:

    codes_S: 1-D, at least one code. A single code, which leaves no choice, is repeated whatever the perturbation.
    rng: draws the position.
    share: of the codes that are affected, 0 to 1; rounded to a number of codes, at least one and never all.
    other_S: codes of another sentence, which the perturbations in `FOREIGN` need.

Choose one with `PERTURBATIONS[name](codes_S, rng, share, other_S)`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from clvp_train.errors import UserError

Codes = np.ndarray[Any, np.dtype[Any]]
Perturbation = Callable[..., Codes]


def _by_share(perturb: Callable[[Codes, np.random.Generator, int, Codes | None], Codes]) -> Perturbation:
    """Turns a function of the number of affected codes, 1 to S - 1, into a perturbation."""

    @wraps(perturb)
    def perturbation(codes_S: Codes, rng: np.random.Generator, share: float, other_S: Codes | None = None) -> Codes:
        if len(codes_S) < 2:
            return np.tile(codes_S, 2)
        return perturb(codes_S, rng, min(max(round(share * len(codes_S)), 1), len(codes_S) - 1), other_S)

    return perturbation


@_by_share
def cut_off(codes_S: Codes, rng: np.random.Generator, length: int, other_S: Codes | None) -> Codes:
    """The codes end early."""
    return codes_S[:-length].copy()


@_by_share
def repeat(codes_S: Codes, rng: np.random.Generator, length: int, other_S: Codes | None) -> Codes:
    """A span is repeated."""
    start = rng.integers(len(codes_S) - length + 1)
    return np.concatenate([codes_S[: start + length], codes_S[start:]])


@_by_share
def drop(codes_S: Codes, rng: np.random.Generator, length: int, other_S: Codes | None) -> Codes:
    """A span is left out; the last code always stays."""
    start = rng.integers(len(codes_S) - length)
    return np.concatenate([codes_S[:start], codes_S[start + length :]])


@_by_share
def swap(codes_S: Codes, rng: np.random.Generator, length: int, other_S: Codes | None) -> Codes:
    """Two neighbouring spans are exchanged, each at most half of the codes; single codes where no two such spans differ. Codes
    that are all equal are cut off instead."""
    for size in (min(length, len(codes_S) // 2), 1):
        starts = np.flatnonzero(sliding_window_view(codes_S[size:] != codes_S[:-size], size).any(axis=1))
        if len(starts):
            start = starts[rng.integers(len(starts))]
            middle, end = start + size, start + 2 * size
            return np.concatenate([codes_S[:start], codes_S[middle:end], codes_S[start:middle], codes_S[end:]])
    return codes_S[:-length].copy()


@_by_share
def foreign_tail(codes_S: Codes, rng: np.random.Generator, length: int, other_S: Codes | None) -> Codes:
    """The end is replaced by the same share of another sentence's codes, or left out if both are equal."""
    head_S, other_S = codes_S[:-length], _required(other_S, "foreign_tail")
    foreign_S = np.concatenate([head_S, other_S[len(other_S) - -(-len(other_S) * length // len(codes_S)) :]])
    return head_S.copy() if np.array_equal(foreign_S, codes_S) else foreign_S


@_by_share
def foreign_stretch(codes_S: Codes, rng: np.random.Generator, length: int, other_S: Codes | None) -> Codes:
    """A span is replaced by one of the same length from another sentence, or by all of a shorter sentence; it is left out if
    both are equal."""
    other_S = _required(other_S, "foreign_stretch")
    start, other = rng.integers(len(codes_S) - length + 1), rng.integers(max(len(other_S) - length, 0) + 1)
    head_S, tail_S = codes_S[:start], codes_S[start + length :]
    foreign_S = np.concatenate([head_S, other_S[other : other + length], tail_S])
    return np.concatenate([head_S, tail_S]) if np.array_equal(foreign_S, codes_S) else foreign_S


@_by_share
def babble(codes_S: Codes, rng: np.random.Generator, length: int, other_S: Codes | None) -> Codes:
    """Random codes of another sentence are appended, or of the same sentence where the other has none."""
    other_S = _required(other_S, "babble")
    return np.concatenate([codes_S, rng.choice(other_S if len(other_S) else codes_S, length)])


def _required(other_S: Codes | None, name: str) -> Codes:
    if other_S is None:
        raise ValueError(f"{name} needs other_S, the codes of another sentence")
    return other_S


PERTURBATIONS: dict[str, Perturbation] = {
    perturbation.__name__: perturbation
    for perturbation in (cut_off, repeat, drop, swap, foreign_tail, foreign_stretch, babble)
}
FOREIGN = ("foreign_tail", "foreign_stretch", "babble")
HARD_NEGATIVES = ("cut_off", "repeat", "drop", "swap", "foreign_tail")


@dataclass(frozen=True)
class HardNegatives:
    """Draws perturbed copies of a pair's codes as further negatives in training. The fields are settings in `data`."""

    num_hard_negatives: int = 0  # K for each pair
    hard_negatives: Sequence[str] = HARD_NEGATIVES  # names of perturbations, drawn with equal probability
    perturbation_share: Sequence[float] = (0.1, 0.5)  # minimum and maximum share of the codes that are affected

    def __post_init__(self) -> None:
        names, bounds = tuple(self.hard_negatives), tuple(self.perturbation_share)
        if not names or any(name not in PERTURBATIONS for name in names):
            raise UserError(
                f"data.hard_negatives=[{','.join(map(str, names))}]: not names of perturbations. Choose from "
                f"[{','.join(PERTURBATIONS)}]."
            )
        # tuples, whatever list type the config system gave, because they are pickled for loader processes
        object.__setattr__(self, "hard_negatives", names)
        object.__setattr__(self, "perturbation_share", bounds)

    def draw(
        self, codes_S: Codes, rng: np.random.Generator, other_codes: Callable[[], Codes], limit: int | None = None
    ) -> list[Codes]:
        """Returns K perturbed copies of the codes, none equal to the original within the limit.

        Args:
            codes_S: of a pair.
            rng: draws perturbations, shares and positions.
            other_codes: returns the codes of another text; it may draw from `rng` too.
            limit: number of codes that the model sees; None: all.
        """
        codes_S = codes_S[:limit]
        return [self._copy(codes_S, rng, other_codes, limit) for _ in range(self.num_hard_negatives)]

    def _copy(
        self, codes_S: Codes, rng: np.random.Generator, other_codes: Callable[[], Codes], limit: int | None
    ) -> Codes:
        name = self.hard_negatives[int(rng.integers(len(self.hard_negatives)))]
        least, most = self.perturbation_share
        share = rng.uniform(least, most)
        perturbed_S = PERTURBATIONS[name](codes_S, rng, share, other_codes() if name in FOREIGN else None)
        is_beyond_limit = np.array_equal(perturbed_S[:limit], codes_S)
        return drop(codes_S, rng, share) if is_beyond_limit else perturbed_S
