"""From prompts to candidates: a slot of the decoder whose candidate has ended takes the next prompt. Shapes: D width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from clvp_train.tortoise.autoregressive import PROMPT_FRAME
from clvp_train.tortoise.decoder import Decoder
from clvp_train.tortoise.sampling import uniforms

REFILL = (
    1 / 16
)  # the share of slots that must be free before prompts go in: a prefill of one costs nearly as much as of many


@dataclass(frozen=True)
class Prompt:
    """What one candidate is drawn from."""

    latent_D: torch.Tensor  # of the voice
    text: tuple[int, ...]  # token ids
    seed: tuple[int, ...]  # of the noise

    @property
    def length(self) -> int:
        """In places."""
        return len(self.text) + PROMPT_FRAME


@dataclass(frozen=True)
class Candidate:
    """One sequence of speech codes that the AR drew for a text."""

    codes: tuple[int, ...]  # without the stop token
    finished: bool  # False: cut off at `Sampling.max_codes`
    log_probability: float  # in nats, of the codes and the stop together, under the AR's logits as they are


@torch.inference_mode()
def draw(
    decoder: Decoder, prompts: Sequence[Prompt], on_candidate: Callable[[Candidate], None] | None = None
) -> list[Candidate]:
    """Draws one candidate a prompt. What a prompt gets depends on itself alone, not on those beside it.

    Args:
        decoder: whose slots are drawn side by side.
        prompts: none longer than the decoder's longest.
        on_candidate: called with each as it ends.
    """
    # the longest first, so that the last to be drawn, with ever fewer beside them, are the shortest
    waiting = sorted(range(len(prompts)), key=lambda number: (prompts[number].length, prompts[number].text))
    decoder.clear()
    slots, found = _Slots(decoder), dict[int, Candidate]()
    while waiting or slots.held:
        if waiting and slots.num_free >= max(1, int(REFILL * slots.count)):
            numbers = [waiting.pop() for _ in range(min(slots.num_free, len(waiting)))]
            slots.fill(numbers, [prompts[number] for number in numbers])
        elif not waiting and slots.num_free >= slots.count / 2:
            slots.halve()
        for number, candidate in slots.advance():
            found[number] = candidate
            if on_candidate is not None:
                on_candidate(candidate)
    return [found[number] for number in range(len(prompts))]


@dataclass
class _Held:
    """What the host knows of a slot without asking the device."""

    number: int  # of the prompt
    places: int  # how many cached places the next step looks at
    limit: int  # how many the last one may


class _Slots:
    """The decoder's slots in use, and what each holds."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.count = decoder, decoder.num_slots
        self.held: dict[int, _Held] = {}  # by slot

    @property
    def num_free(self) -> int:
        return self.count - len(self.held)

    @property
    def longest(self) -> int:
        return max((held.places for held in self.held.values()), default=0)

    def fill(self, numbers: Sequence[int], prompts: Sequence[Prompt]) -> None:
        free = [slot for slot in range(self.count) if slot not in self.held][: len(prompts)]
        # candidates of one text in one voice share the work on their prompt
        keys = [(prompt.text, prompt.latent_D.cpu().numpy().tobytes()) for prompt in prompts]
        shared = dict(zip(keys, prompts))
        place = {key: index for index, key in enumerate(shared)}
        max_codes = self.decoder.sampling.max_codes
        self.decoder.load(
            free,
            torch.stack([prompt.latent_D for prompt in shared.values()]),
            [prompt.text for prompt in shared.values()],
            [place[key] for key in keys],
            uniforms([prompt.seed for prompt in prompts], max_codes),
        )
        for slot, number, prompt in zip(free, numbers, prompts):
            self.held[slot] = _Held(number, prompt.length + 1, prompt.length + max_codes)

    def halve(self) -> None:
        """Leaves free slots behind. By halves, as each count of slots takes a graph of its own."""
        self.count //= 2
        held_first = sorted(range(self.decoder.num_slots), key=lambda slot: slot not in self.held)
        kept = sorted(held_first[: self.count])
        self.decoder.move(kept, self.longest)
        self.held = {index: self.held[slot] for index, slot in enumerate(kept) if slot in self.held}

    def advance(self) -> list[tuple[int, Candidate]]:
        """Draws on until the device is looked at again. Returns the candidates that have ended, and their prompts' numbers."""
        for _ in range(self.decoder.look_every):
            self.decoder.step(self.count, self.longest)
            for held in self.held.values():
                held.places = min(held.places + 1, held.limit)
        ended = [slot for slot in self.decoder.ended(self.count) if slot in self.held]
        return [
            (self.held.pop(slot).number, self._candidate(*drawn))
            for slot, drawn in zip(ended, self.decoder.drawn(ended))
        ]

    def _candidate(self, codes: list[int], log_probability: float) -> Candidate:
        finished = codes[-1] == self.decoder.model.stop_speech
        return Candidate(tuple(codes[:-1] if finished else codes), finished, log_probability)
