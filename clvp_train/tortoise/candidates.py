"""The decode loop: prompts to candidates. Shapes: B batch, P prompt length, L any length, S speech length, D width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from clvp_train.tortoise.autoregressive import AutoRegressive, KeyValueCache
from clvp_train.tortoise.sampling import Sampling, next_codes, uniforms

COMPACT_BELOW = 0.8  # the share of unfinished rows at which finished ones leave the batch
CACHE_STEP = 64  # the cache grows by this many positions


@dataclass(frozen=True)
class Candidate:
    """One sequence of speech codes that the AR drew for a text."""

    codes: tuple[int, ...]  # without the stop token
    finished: bool  # False: cut off at `Sampling.max_codes`


@torch.inference_mode()
def draw(
    model: AutoRegressive,
    latents_BD: torch.Tensor,
    texts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    sampling: Sampling,
    on_step: Callable[[int], None] | None = None,
) -> list[Candidate]:
    """Draws one candidate a row. What a row gets depends on its own latent, text and seed, not on the rows beside it.

    Args:
        latents_BD: (B, D) conditioning latents.
        texts: B lists of token ids.
        seeds: B seeds, each a sequence of whole numbers.
        on_step: called after every step with the number of codes drawn in it.
    """
    prompt_BPD, mask_BP = model.prompt(latents_BD, texts)
    B, P, D = prompt_BPD.shape
    codes_BS = torch.full((B, sampling.max_codes), model.stop_speech, device=prompt_BPD.device)
    uniform_BS = uniforms(seeds, sampling.max_codes).to(prompt_BPD.device)
    penalised = torch.zeros(B, model.head.out_features, dtype=torch.bool, device=prompt_BPD.device)
    penalised[:, [*sampling.penalised_ids, model.start_speech]] = True
    rows = torch.arange(B, device=prompt_BPD.device)
    going = torch.ones_like(rows, dtype=torch.bool)
    cache = KeyValueCache((len(model.blocks), B, model.num_heads, P + CACHE_STEP, D // model.num_heads), prompt_BPD)

    # padding attends to itself, so that no softmax is over nothing
    causal = torch.ones(P, P, dtype=torch.bool, device=mask_BP.device).tril()
    itself = torch.eye(P, dtype=torch.bool, device=mask_BP.device)
    logits = model.logits(prompt_BPD, (causal & mask_BP[:, None] | itself)[:, None], cache)
    for step in range(sampling.max_codes):
        drawn = next_codes(logits[:, -1], penalised, uniform_BS[rows, step], sampling)
        codes_BS[rows, step] = drawn
        going = going & (drawn != model.stop_speech)
        still_going = int(going.sum())
        if on_step is not None:
            on_step(still_going)
        if still_going == 0 or step + 1 == sampling.max_codes:
            break
        if still_going <= COMPACT_BELOW * len(rows):
            kept = going.nonzero()[:, 0]
            rows, drawn, mask_BP, penalised, going = (x[kept] for x in (rows, drawn, mask_BP, penalised, going))
            cache.keep(kept)
        penalised.scatter_(1, drawn[:, None], True)
        if cache.length == cache.keys.shape[3]:
            cache.grow(CACHE_STEP)
        mask_BP = torch.nn.functional.pad(mask_BP, (0, 1), value=True)
        logits = model.logits(model.speech_vectors(drawn[:, None], first=step + 1), mask_BP[:, None, None], cache)
    return [_candidate(codes, model.stop_speech) for codes in codes_BS.tolist()]


def _candidate(codes: list[int], stop: int) -> Candidate:
    finished = stop in codes
    return Candidate(tuple(codes[: codes.index(stop)] if finished else codes), finished)
