"""Batches with the lengths of two public corpora, from their published statistics. Shapes: B batch."""

import math

import numpy as np
import torch

from clvp_train.data.collate import Batch
from clvp_train.tortoise.padding import pad

CODES_A_SECOND = 22_050 / 1024
TOKENS_A_SECOND = 9.3  # 15.2 letters a second (LJSpeech: 99.9 in 6.57 s), 1.64 letters a token of the bundled tokenizer
MAX_TEXT, MAX_SPEECH = 350, 430  # what tortoise-tts builds its CLVP for (`api.py`)


def seconds(corpus: str, number: int, seed: int) -> torch.Tensor:
    """(number,) durations.

    LJSpeech (Ito 2017, the statistics of its page): 1.11 to 10.10 s, mean 6.57, standard deviation 2.18: a beta distribution.
    LibriTTS (Zen et al. 2019, https://arxiv.org/abs/1904.02882): 585 h in 375 086 utterances, mean 5.61 s, a long tail: a gamma
    distribution of standard deviation 4.5.
    """
    torch.manual_seed(seed)
    if corpus == "ljspeech":
        mean, sd = (6.57 - 1.11) / 8.99, 2.18 / 8.99
        both = mean * (1 - mean) / sd**2 - 1
        return 1.11 + 8.99 * torch.distributions.Beta(mean * both, (1 - mean) * both).sample((number,))
    shape = (5.61 / 4.5) ** 2
    return torch.distributions.Gamma(shape, shape / 5.61).sample((number,)).clamp(min=0.3)


def batch(corpus: str, size: int, vocabularies: tuple[int, int], seed: int) -> Batch:
    """A training batch of random ids; the speaking rate varies by a tenth."""
    durations_B = seconds(corpus, size, seed)
    draw = torch.Generator().manual_seed(seed)
    rates_B = 1 + 0.1 * torch.randn(size, generator=draw)
    lengths = (durations_B * rates_B * TOKENS_A_SECOND, durations_B * CODES_A_SECOND)
    found: Batch = {}
    for name, mask, length_B, limit, vocabulary in (
        ("input_ids", "text_attention_mask", lengths[0], MAX_TEXT, vocabularies[0]),
        ("speech_ids", "speech_attention_mask", lengths[1], MAX_SPEECH, vocabularies[1]),
    ):
        rounded = [min(limit, max(3, math.ceil(length))) for length in length_B.tolist()]
        found[name], found[mask] = pad([torch.randint(1, vocabulary, (length,), generator=draw) for length in rounded])
        found[mask.replace("attention_mask", "lengths")] = np.array(rounded)
    return found
