"""From the AR's logits to the next code. Shapes: B batch, V speech vocabulary, K kept entries, S speech length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn. The defaults are those of tortoise-tts' `api.py` and of `generate`, which it calls."""

    temperature: float = 0.8  # divides the logits; 0 takes the likeliest code
    top_k: int = 50  # likeliest codes kept (transformers' default, which Tortoise never turns off)
    top_p: float = 0.8  # probability mass kept
    repetition_penalty: float = 2.0  # divides positive logits of codes drawn before, multiplies negative ones
    max_codes: int = 500  # a candidate that has not stopped by then is cut off
    penalised_ids: tuple[int, ...] = (1,)  # penalised from the start; tortoise-tts' prompt is made of placeholder 1

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 1 or self.repetition_penalty <= 0:
            raise ValueError(f"{self}: needs temperature ≥ 0, 0 < top_p ≤ 1, top_k ≥ 1 and repetition_penalty > 0")
        if self.max_codes < 1:
            raise ValueError(f"{self}: needs max_codes ≥ 1")


def uniforms(seeds: Sequence[Sequence[int]], count: int) -> torch.Tensor:
    """(B, count) numbers in [0, 1). A row depends on its own seed alone, so a candidate is the same in any batch."""
    generators = [np.random.Generator(np.random.Philox(np.random.SeedSequence(seed))) for seed in seeds]
    # drawn in float32: a float64 just below 1 would round to 1 and pick a code outside the nucleus
    return torch.from_numpy(np.stack([generator.random(count, dtype=np.float32) for generator in generators]))


def next_codes(
    logits_BV: torch.Tensor, penalised_BV: torch.Tensor, uniform_B: torch.Tensor, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws one code a row, as repetition penalty, temperature, top-k, top-p and a multinomial draw do in that order.

    The top-k come first so that nothing ever sorts the whole vocabulary. Nothing here waits for the device.

    Args:
        logits_BV: raw logits.
        penalised_BV: True for ids under the repetition penalty.
        uniform_B: a float32 number in [0, 1) a row, which picks the code by inverse transform.

    Returns:
        (B,) code ids, and their (B,) log-probabilities under the raw logits.
    """
    logits_BV = logits_BV.float()
    harsher_BV = logits_BV
    if sampling.repetition_penalty != 1.0:
        penalty = sampling.repetition_penalty
        harsher_BV = torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
        harsher_BV = torch.where(penalised_BV, harsher_BV, logits_BV)
    if sampling.temperature == 0:
        drawn_B1 = harsher_BV.argmax(dim=1, keepdim=True)
    else:
        kept_BK, ids_BK = harsher_BV.topk(min(sampling.top_k, logits_BV.shape[1]), dim=1)
        probabilities_BK = (kept_BK / sampling.temperature).softmax(dim=1)
        mass_before_BK = probabilities_BK.cumsum(dim=1) - probabilities_BK
        nucleus_BK = probabilities_BK.masked_fill(mass_before_BK >= sampling.top_p, 0.0).cumsum(dim=1)
        threshold_B1 = uniform_B[:, None] * nucleus_BK[:, -1:]
        drawn_B1 = ids_BK.gather(1, torch.searchsorted(nucleus_BK, threshold_B1, right=True))
    log_probability_B1 = logits_BV.gather(1, drawn_B1) - logits_BV.logsumexp(dim=1, keepdim=True)
    return drawn_B1[:, 0], log_probability_B1[:, 0]
