"""Draws the next code from the AR's logits. Shapes: B batch, V speech vocabulary, K kept entries, S speech length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

MIN_TEMPERATURE = 1e-4  # logits divided by less overflow


@dataclass(frozen=True)
class Sampling:
    """Sampling settings. The defaults are those of tortoise-tts' `api.py` and of transformers' `generate`, which it calls."""

    temperature: float = 0.8  # divides the logits; 0 takes the most likely code
    top_k: int = 50  # most likely codes kept (transformers' default, which Tortoise never turns off)
    top_p: float = 0.8  # probability mass kept
    repetition_penalty: float = 2.0  # divides positive logits of codes drawn before, multiplies negative ones
    max_codes: int = 500  # candidates without a stop token are cut off at this length
    penalised_ids: tuple[int, ...] = (1,)  # penalised from the start; the placeholder id of tortoise-tts' prompts

    def __post_init__(self) -> None:
        # also checked here because a checkpoint's sampling.json does not pass through the settings' schema
        if 0 < self.temperature < MIN_TEMPERATURE:
            raise ValueError(f"{self}: needs a temperature of 0 or at least {MIN_TEMPERATURE}")
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 1 or self.repetition_penalty <= 0:
            raise ValueError(f"{self}: needs temperature ≥ 0, 0 < top_p ≤ 1, top_k ≥ 1 and repetition_penalty > 0")
        if self.max_codes < 1:
            raise ValueError(f"{self}: needs max_codes ≥ 1")


def uniforms(seeds: Sequence[Sequence[int]], count: int) -> torch.Tensor:
    """Returns (B, count) numbers in [0, 1). A row depends only on its own seed, so a candidate is the same in any batch."""
    generators = [np.random.Generator(np.random.Philox(np.random.SeedSequence(seed))) for seed in seeds]
    # drawn in float32: a float64 just below 1 would round to 1 and pick a code outside the nucleus
    return torch.from_numpy(np.stack([generator.random(count, dtype=np.float32) for generator in generators]))


def next_codes(
    logits_BV: torch.Tensor, penalised_BV: torch.Tensor, uniform_B: torch.Tensor, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws one code per row: repetition penalty, temperature, top-k, top-p and a multinomial draw, in that order.

    top-k comes before top-p so that the complete vocabulary is never sorted. Nothing here synchronises with the device.

    Args:
        logits_BV: raw logits.
        penalised_BV: True for ids under the repetition penalty.
        uniform_B: a float32 number in [0, 1) per row, which selects the code by inverse transform sampling.

    Returns:
        (B,) code ids, and their (B,) log-probabilities under the raw logits.
    """
    logits_BV = logits_BV.float()
    adjusted_BV = logits_BV
    if sampling.repetition_penalty != 1.0:
        penalty = sampling.repetition_penalty
        adjusted_BV = torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
        adjusted_BV = torch.where(penalised_BV, adjusted_BV, logits_BV)
    if sampling.temperature == 0:
        drawn_B1 = adjusted_BV.argmax(dim=1, keepdim=True)
    else:
        kept_BK, ids_BK = adjusted_BV.topk(min(sampling.top_k, logits_BV.shape[1]), dim=1)
        probabilities_BK = (kept_BK / sampling.temperature).softmax(dim=1)
        mass_before_BK = probabilities_BK.cumsum(dim=1) - probabilities_BK
        nucleus_BK = probabilities_BK.masked_fill(mass_before_BK >= sampling.top_p, 0.0).cumsum(dim=1)
        threshold_B1 = uniform_B[:, None] * nucleus_BK[:, -1:]
        drawn_B1 = ids_BK.gather(1, torch.searchsorted(nucleus_BK, threshold_B1, right=True))
    log_probability_B1 = logits_BV.gather(1, drawn_B1) - logits_BV.logsumexp(dim=1, keepdim=True)
    return drawn_B1[:, 0], log_probability_B1[:, 0]
