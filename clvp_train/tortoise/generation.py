"""Draws candidates for prompts by continuous batching: a slot whose candidate has ended takes the next prompt.
Shapes: D width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from clvp_train.tortoise.autoregressive import PROMPT_FRAME, AutoRegressive
from clvp_train.tortoise.decoder import Decoder, slot_bytes
from clvp_train.tortoise.sampling import Sampling, uniforms

# share of slots that must be free before new prompts are loaded: one prefill costs nearly as much as many
REFILL = 1 / 16
MAX_SLOTS = 256  # more are hardly faster
FREE_SHARE = 0.85  # of the free memory of a GPU that slots take


@dataclass(frozen=True)
class Prompt:
    """The input of one candidate."""

    latent_D: torch.Tensor  # conditioning latent of the voice
    text: tuple[int, ...]  # token ids
    seed: tuple[int, ...]  # of its random numbers

    @property
    def length(self) -> int:
        """In positions."""
        return len(self.text) + PROMPT_FRAME


@dataclass(frozen=True)
class Candidate:
    """One sequence of speech codes that the AR drew for a text."""

    codes: tuple[int, ...]  # without the stop token
    finished: bool  # False: cut off at `Sampling.max_codes`
    log_probability: float  # in nats, of the codes and the stop token, under the AR's raw logits

    @property
    def log_probability_per_code(self) -> float:
        """In nats; the stop token counts as a code."""
        return self.log_probability / max(1, len(self.codes) + self.finished)


class CandidateSampler:
    """Draws candidates with a decoder that later calls reuse, if it fits them."""

    def __init__(self, model: AutoRegressive, sampling: Sampling) -> None:
        self.model, self.sampling = model, sampling
        self.decoder: Decoder | None = None
        self._most_slots: dict[int, int] = {}  # by the bytes of a slot

    @property
    def device(self) -> torch.device:
        return self.model.head.weight.device

    def draw(
        self,
        prompts: Sequence[Prompt],
        num_slots: int | None = None,
        on_candidate: Callable[[Candidate], None] | None = None,
    ) -> list[Candidate]:
        """Draws one candidate per prompt, see `draw`.

        Args:
            prompts: of any length.
            num_slots: candidates drawn in parallel; None: `MAX_SLOTS`, or as many as the free memory of the GPU takes.
            on_candidate: called with each candidate when it ends.
        """
        longest = max((prompt.length for prompt in prompts), default=0)
        num_slots = max(1, min(self._fitting_slots(longest) if num_slots is None else num_slots, len(prompts)))
        if self.decoder is None or not self.decoder.fits(self.sampling, num_slots, longest):
            self.decoder = None  # frees its cache before the next one is allocated
            self.decoder = Decoder(self.model, self.sampling, num_slots, longest)
        return draw(self.decoder, prompts, on_candidate)

    def _fitting_slots(self, longest_prompt: int) -> int:
        """How many slots a decoder may have. Measured once for each size of its cache, so that the decoder can be reused."""
        if self.device.type != "cuda":
            return MAX_SLOTS
        size = slot_bytes(self.model, self.sampling, longest_prompt)
        if size not in self._most_slots:
            self.decoder = None  # its memory counts as free
            torch.cuda.empty_cache()
            free, _ = torch.cuda.mem_get_info(self.device)
            self._most_slots[size] = max(1, min(MAX_SLOTS, int(FREE_SHARE * free / size)))
        return self._most_slots[size]


@torch.inference_mode()
def draw(
    decoder: Decoder, prompts: Sequence[Prompt], on_candidate: Callable[[Candidate], None] | None = None
) -> list[Candidate]:
    """Draws one candidate per prompt. It depends only on its prompt, not on the others in the batch.

    Args:
        decoder: draws as many candidates at a time as it has slots.
        prompts: none longer than the decoder's `longest_prompt`.
        on_candidate: called with each candidate when it ends.
    """
    # longest first: at the end, when few slots are in use, the remaining candidates are short
    waiting = sorted(range(len(prompts)), key=lambda index: (prompts[index].length, prompts[index].text))
    decoder.clear()
    slots, results = _Slots(decoder), dict[int, Candidate]()
    while waiting or slots.in_use:
        if waiting and slots.num_free >= max(1, int(REFILL * slots.count)):
            indices = [waiting.pop() for _ in range(min(slots.num_free, len(waiting)))]
            slots.fill(indices, [prompts[index] for index in indices])
        elif not waiting and slots.num_free >= slots.count / 2:
            slots.halve()
        for index, candidate in slots.advance():
            results[index] = candidate
            if on_candidate is not None:
                on_candidate(candidate)
    return [results[index] for index in range(len(prompts))]


@dataclass
class _SlotState:
    """What is known about a slot on the CPU, without synchronising with the device."""

    index: int  # of the prompt
    length: int  # cached positions that the next step attends to
    limit: int  # cached positions that the last step may attend to


class _Slots:
    """Bookkeeping of the decoder's slots."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.count = decoder, decoder.num_slots
        self.in_use: dict[int, _SlotState] = {}  # by slot

    @property
    def num_free(self) -> int:
        return self.count - len(self.in_use)

    @property
    def longest(self) -> int:
        return max((state.length for state in self.in_use.values()), default=0)

    def fill(self, indices: Sequence[int], prompts: Sequence[Prompt]) -> None:
        free = [slot for slot in range(self.count) if slot not in self.in_use][: len(prompts)]
        # candidates of one text in one voice share a prefill
        keys = [(prompt.text, prompt.latent_D.cpu().numpy().tobytes()) for prompt in prompts]
        unique = dict(zip(keys, prompts))
        position = {key: index for index, key in enumerate(unique)}
        max_codes = self.decoder.sampling.max_codes
        self.decoder.load(
            free,
            torch.stack([prompt.latent_D for prompt in unique.values()]),
            [prompt.text for prompt in unique.values()],
            [position[key] for key in keys],
            uniforms([prompt.seed for prompt in prompts], max_codes),
        )
        for slot, index, prompt in zip(free, indices, prompts):
            self.in_use[slot] = _SlotState(index, prompt.length + 1, prompt.length + max_codes)

    def halve(self) -> None:
        """Drops half of the slots, all free. Halving keeps the number of CUDA graphs small: each slot count needs its own."""
        self.count //= 2
        free = [slot for slot in range(self.decoder.num_slots) if slot not in self.in_use]
        kept = sorted([*self.in_use, *free[: self.count - len(self.in_use)]])
        self.decoder.move(kept, self.longest)  # they become the slots 0, 1, 2, …
        self.in_use = {new: self.in_use[old] for new, old in enumerate(kept) if old in self.in_use}

    def advance(self) -> list[tuple[int, Candidate]]:
        """Draws `Decoder.sync_every` codes per slot. Returns the candidates that have ended, with the index of their prompt."""
        for _ in range(self.decoder.sync_every):
            self.decoder.step(self.count, self.longest)
            for state in self.in_use.values():
                state.length = min(state.length + 1, state.limit)
        ended = [slot for slot in self.decoder.ended(self.count) if slot in self.in_use]
        return [
            (self.in_use.pop(slot).index, self._candidate(*drawn))
            for slot, drawn in zip(ended, self.decoder.drawn(ended))
        ]

    def _candidate(self, codes: list[int], log_probability: float) -> Candidate:
        finished = codes[-1] == self.decoder.model.stop_speech
        return Candidate(tuple(codes[:-1] if finished else codes), finished, log_probability)
