"""What the adapters for other projects' checkpoints share. Only these three files know foreign names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

HALVES = ("text", "speech")


def inverse_frequency(rotary_dim: int) -> Tensor:
    return 1.0 / (10000 ** (torch.arange(0, rotary_dim, 2).float() / rotary_dim))


def rename(source: Any, weights: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """`weights` under our names.

    Raises:
        ValueError: `names` and `weights` do not have the same keys.
    """
    missing, unexpected = sorted(names.keys() - weights.keys()), sorted(weights.keys() - names.keys())
    if missing or unexpected:
        raise ValueError(
            f"{source} is not a CLVP of the expected layout. Missing: {missing}. Unexpected: {unexpected}."
        )
    return {ours: weights[theirs] for theirs, ours in names.items()}


def pop_rotary(source: Any, weights: dict[str, Tensor], key: str) -> int | None:
    """Take the rotary frequencies out of `weights`; the width they stand for, or None if they are not stored.

    Raises:
        ValueError: they are other frequencies than those this package computes.
    """
    stored = weights.pop(key, None)
    if stored is None:
        return None
    width = 2 * len(stored)
    if not torch.allclose(stored.float(), inverse_frequency(width), rtol=1e-2 if stored.dtype.itemsize < 4 else 1e-5):
        raise ValueError(f"{source}: {key} does not hold the rotary frequencies of base 10000: {stored.tolist()}.")
    return width


def check_fields(server: str, model: PreTrainedModel, wanted: dict[str, dict[str, Any]]) -> None:
    misfits = [
        f"{half}_config.{field} is {found!r} and must be {value!r}"
        for half, fields in wanted.items()
        for field, value in fields.items()
        if (found := getattr(getattr(model.config, f"{half}_config"), field)) != value
    ]
    if misfits:
        raise ValueError(f"{server} cannot serve this CLVP: {'; '.join(misfits)}.")
