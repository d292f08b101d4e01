"""One decoding step for many slots at once, on tensors that never move, so that a GPU can replay it as one captured graph.

Shapes: B slots, N prompts, R loaded slots, S speech length, V speech vocabulary, D width.
"""

from collections.abc import Sequence

import torch

from clvp_train.tortoise.autoregressive import PROMPT_FRAME, AutoRegressive
from clvp_train.tortoise.cache import KeyValueCache
from clvp_train.tortoise.sampling import Sampling, next_codes


class Decoder:
    """Slots, each of which holds a prompt and the codes drawn for it so far.

    A slot that has its stop or its last code stays as it is until it is loaded anew.

    Args:
        model: the AR.
        sampling: how codes are drawn.
        num_slots: how many sequences are drawn side by side.
        longest_prompt: in places, see `AutoRegressive.prompt`.
    """

    def __init__(self, model: AutoRegressive, sampling: Sampling, num_slots: int, longest_prompt: int) -> None:
        self.model, self.sampling, self.num_slots = model, sampling, num_slots
        weight = model.head.weight
        self.device, width, vocab_size = weight.device, model.head.in_features, model.head.out_features
        self.static = (
            self.device.type == "cuda"
        )  # graphs need a cache that stays; a CPU is slow on gaps between its slots
        self.bucket = 128 if self.static else 32  # attention looks at a multiple of so many places; each takes a graph
        places = self.rounded(longest_prompt + sampling.max_codes) if self.static else self.bucket
        shape = (len(model.blocks), num_slots, model.num_heads, places, width // model.num_heads)
        self.cache = KeyValueCache(shape, weight)
        # one column more than there are codes: where slots at their end put what nobody reads
        self.codes_BS = torch.zeros(num_slots, sampling.max_codes + 1, dtype=torch.long, device=self.device)
        self.uniform_BS = torch.zeros(num_slots, sampling.max_codes + 1, device=self.device)
        self.penalised_BV = torch.zeros(num_slots, vocab_size, dtype=torch.bool, device=self.device)
        self.fresh_V = self.penalised_BV[0].clone()
        self.fresh_V[[*sampling.penalised_ids, model.start_speech]] = True
        self.code_B = torch.zeros(num_slots, dtype=torch.long, device=self.device)  # what the next step reads
        self.step_B = torch.zeros_like(self.code_B)  # how many codes are drawn, the stop included
        self.prompt_B = torch.zeros_like(self.code_B)  # places before the start token
        self.log_probability_B = torch.zeros(num_slots, device=self.device)
        self.going_B = torch.zeros_like(self.code_B, dtype=torch.bool)
        # steps between two looks at which slots have ended; each look waits for the device
        self.look_every = 8 if self.static else 1
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}

    def fits(self, sampling: Sampling, num_slots: int, longest_prompt: int) -> bool:
        """Whether this decoder can be used again instead of a new one."""
        long_enough = not self.static or self.cache.capacity >= longest_prompt + sampling.max_codes
        return self.sampling == sampling and self.num_slots == num_slots and long_enough

    def clear(self) -> None:
        """Empties all slots, so that what is drawn next does not depend on what was, not even in the last bits."""
        self.going_B.zero_()
        if not self.static:
            self.cache.resize(self.bucket)

    def load(
        self,
        slots: Sequence[int],
        latents_ND: torch.Tensor,
        texts: Sequence[Sequence[int]],
        prompt_of_slot: Sequence[int],
        uniform_RS: torch.Tensor,
    ) -> None:
        """Puts prompts into slots.

        Args:
            slots: R places.
            latents_ND: a voice's latent a prompt.
            texts: N lists of token ids.
            prompt_of_slot: which prompt goes into each slot; candidates of one text and voice share theirs.
            uniform_RS: each slot's random numbers, one a code.
        """
        slots_R, prompt_R = (torch.tensor(list(numbers), device=self.device) for numbers in (slots, prompt_of_slot))
        self._fit(max(len(text) for text in texts) + PROMPT_FRAME, shrink=False)
        x_NPD, lengths_N = self.model.prompt(latents_ND.to(self.device), texts)
        self.model.stack(x_NPD, self.cache.prefill(slots_R, prompt_R))
        self.prompt_B[slots_R] = lengths_N[prompt_R]
        self.code_B[slots_R] = self.model.start_speech
        self.step_B[slots_R] = 0
        self.log_probability_B[slots_R] = 0.0
        self.penalised_BV[slots_R] = self.fresh_V
        self.uniform_BS[slots_R, :-1] = uniform_RS.to(self.device)
        self.going_B[slots_R] = True

    def step(self, num_slots: int, length: int) -> None:
        """Draws a code for each of the first slots.

        Args:
            num_slots: how many.
            length: how many cached places the longest of them that is going on looks at.
        """
        length = self.rounded(length)
        self._fit(length)
        if not self.static:
            self._step(num_slots, self.cache.capacity)
            return
        if (num_slots, length) not in self._graphs:
            self._graphs[num_slots, length] = self._capture(num_slots, length)
        self._graphs[num_slots, length].replay()

    def rounded(self, places: int) -> int:
        """The least multiple of the bucket that is no less."""
        return -(-places // self.bucket) * self.bucket

    def _fit(self, length: int, shrink: bool = True) -> None:
        length, capacity = self.rounded(length), self.cache.capacity
        if not self.static and (length > capacity or (shrink and length < capacity - self.bucket)):
            self.cache.resize(length)

    def _capture(self, num_slots: int, length: int) -> "torch.cuda.CUDAGraph":
        if not self._graphs:  # libraries set themselves up on first use, which cannot be captured
            state = [tensor.clone() for tensor in self._state()]
            self._step(num_slots, length)
            for tensor, before in zip(self._state(), state):
                tensor.copy_(before)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self._graphs.values())).pool() if self._graphs else None
        with torch.cuda.graph(graph, pool=pool):
            self._step(num_slots, length)
        return graph

    def _step(self, num_slots: int, length: int) -> None:
        state = (tensor[:num_slots] for tensor in self._state())
        codes_BS, uniform_BS, penalised_BV, code_B, step_B, prompt_B, log_probability_B, going_B = state
        step_B1 = step_B[:, None]
        vectors_B1D = self.model.speech_vectors(code_B[:, None], step_B1)
        x_B1D = self.model.stack(vectors_B1D, self.cache.step(prompt_B + step_B, length))
        uniform_B = uniform_BS.gather(1, step_B1)[:, 0]
        drawn_B, drawn_log_probability_B = next_codes(
            self.model.logits(x_B1D)[:, 0], penalised_BV, uniform_B, self.sampling
        )
        codes_BS.scatter_(1, step_B1, drawn_B[:, None])
        penalised_BV.scatter_(1, drawn_B[:, None], True)
        code_B.copy_(drawn_B)
        log_probability_B.add_(drawn_log_probability_B * going_B)
        step_B.add_(going_B)
        going_B.logical_and_((drawn_B != self.model.stop_speech) & (step_B < self.sampling.max_codes))

    def _state(self) -> tuple[torch.Tensor, ...]:
        drawing = self.codes_BS, self.uniform_BS, self.penalised_BV, self.code_B, self.step_B
        return *drawing, self.prompt_B, self.log_probability_B, self.going_B

    def move(self, slots: Sequence[int], length: int) -> None:
        """Moves these slots, in ascending order, to the front, with their first `length` cached places."""
        slots_R = torch.tensor(list(slots), device=self.device)
        self.cache.move(slots_R, length)
        for tensor in self._state():
            tensor[: len(slots_R)] = tensor[slots_R]

    def ended(self, num_slots: int) -> list[int]:
        """Which of the first slots are at their end. Waits for the device."""
        return (~self.going_B[:num_slots]).nonzero()[:, 0].tolist()

    def drawn(self, slots: Sequence[int]) -> list[tuple[list[int], float]]:
        """The codes of these slots, with a stop if they have one, and their log-probabilities."""
        if not slots:
            return []
        slots_R = torch.tensor(list(slots), device=self.device)
        codes, steps = self.codes_BS[slots_R].tolist(), self.step_B[slots_R].tolist()
        return [
            (row[:step], log_probability)
            for row, step, log_probability in zip(codes, steps, self.log_probability_B[slots_R].tolist())
        ]
