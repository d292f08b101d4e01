"""The mistakes that an autoregressive model makes in speech codes. Shapes: S codes.

A perturbation takes the codes of a sentence and returns others, at least one, always different, and leaves its argument as it is:

    codes_S: 1-D, at least one code. A single one, which leaves nothing to choose, is said twice whatever the perturbation.
    rng: draws the place.
    share: of the codes that go wrong, 0 to 1; rounded to whole codes, at least one and never all.
    other_S: codes of another sentence, which the perturbations of `FOREIGN` need.

Choose one with `PERTURBATIONS[name](codes_S, rng, share, other_S)`.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Codes = np.ndarray[Any, np.dtype[Any]]
Perturbation = Callable[..., Codes]


def _of_a_share(spoil: Callable[[Codes, np.random.Generator, int, Codes | None], Codes]) -> Perturbation:
    """A perturbation from a function of the number of codes that go wrong, 1 to S - 1."""

    @wraps(spoil)
    def perturbation(codes_S: Codes, rng: np.random.Generator, share: float, other_S: Codes | None = None) -> Codes:
        if len(codes_S) < 2:
            return np.tile(codes_S, 2)
        return spoil(codes_S, rng, min(max(round(share * len(codes_S)), 1), len(codes_S) - 1), other_S)

    return perturbation


@_of_a_share
def cut_off(codes_S: Codes, rng: np.random.Generator, length: int, other_S: Codes | None) -> Codes:
    """The codes end early."""
    return codes_S[:-length].copy()


@_of_a_share
def repeat(codes_S: Codes, rng: np.random.Generator, length: int, other_S: Codes | None) -> Codes:
    """A stretch is said twice."""
    start = rng.integers(len(codes_S) - length + 1)
    return np.concatenate([codes_S[: start + length], codes_S[start:]])


@_of_a_share
def drop(codes_S: Codes, rng: np.random.Generator, length: int, other_S: Codes | None) -> Codes:
    """A stretch is left out, and the codes go on after it."""
    start = rng.integers(len(codes_S) - length)
    return np.concatenate([codes_S[:start], codes_S[start + length :]])


@_of_a_share
def swap(codes_S: Codes, rng: np.random.Generator, length: int, other_S: Codes | None) -> Codes:
    """Two neighbouring stretches change places, each at most half of the codes; single codes where no two such stretches
    differ. Codes that are all the same lose a stretch instead."""
    for size in (min(length, len(codes_S) // 2), 1):
        starts = np.flatnonzero(sliding_window_view(codes_S[size:] != codes_S[:-size], size).any(axis=1))
        if len(starts):
            start = starts[rng.integers(len(starts))]
            middle, end = start + size, start + 2 * size
            return np.concatenate([codes_S[:start], codes_S[middle:end], codes_S[start:middle], codes_S[end:]])
    return codes_S[:-length].copy()


@_of_a_share
def foreign_tail(codes_S: Codes, rng: np.random.Generator, length: int, other_S: Codes | None) -> Codes:
    """The same share of another sentence's codes stands in place of the end. If they are the end itself, it is left out."""
    head_S, other_S = codes_S[:-length], _given(other_S, "foreign_tail")
    foreign_S = np.concatenate([head_S, other_S[len(other_S) - -(-len(other_S) * length // len(codes_S)) :]])
    return head_S.copy() if np.array_equal(foreign_S, codes_S) else foreign_S


@_of_a_share
def foreign_stretch(codes_S: Codes, rng: np.random.Generator, length: int, other_S: Codes | None) -> Codes:
    """A stretch of another sentence stands in place of one of the same length; of a shorter sentence, all of it. If it is the
    same, it is left out."""
    other_S = _given(other_S, "foreign_stretch")
    start, other = rng.integers(len(codes_S) - length + 1), rng.integers(max(len(other_S) - length, 0) + 1)
    head_S, tail_S = codes_S[:start], codes_S[start + length :]
    foreign_S = np.concatenate([head_S, other_S[other : other + length], tail_S])
    return np.concatenate([head_S, tail_S]) if np.array_equal(foreign_S, codes_S) else foreign_S


@_of_a_share
def babble(codes_S: Codes, rng: np.random.Generator, length: int, other_S: Codes | None) -> Codes:
    """After the end come single codes of another sentence, drawn at random; its own where that has none."""
    other_S = _given(other_S, "babble")
    return np.concatenate([codes_S, rng.choice(other_S if len(other_S) else codes_S, length)])


def _given(other_S: Codes | None, name: str) -> Codes:
    if other_S is None:
        raise ValueError(f"{name} needs other_S, the codes of another sentence")
    return other_S


PERTURBATIONS: dict[str, Perturbation] = {
    perturbation.__name__: perturbation
    for perturbation in (cut_off, repeat, drop, swap, foreign_tail, foreign_stretch, babble)
}
FOREIGN = ("foreign_tail", "foreign_stretch", "babble")
