"""One decoding step for many slots at once, on preallocated tensors, so that a GPU can replay it as a captured CUDA graph.

Shapes: B slots, N prompts, R loaded slots, S speech length, V speech vocabulary, D width, H heads, P prompt length, L cached
positions.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

from clvp_train.tortoise.autoregressive import PROMPT_FRAME, Attend, AutoRegressive
from clvp_train.tortoise.sampling import Sampling, next_codes

STATIC_BUCKET = 128  # positions; on a GPU attention lengths are multiples of it


class KeyValueCache:
    """Keys and values, (layers, B, H, L, D / H) each. Every slot holds one sequence, from position 0 on.

    A slot is not cleared for a new sequence: a sequence attends only to its own positions, and has written each of them first.
    """

    def __init__(self, shape: tuple[int, int, int, int, int], like: torch.Tensor) -> None:
        # zeros, because a masked NaN would still propagate
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    def resize(self, capacity: int) -> None:
        """Extends or cuts every slot to this number of positions."""
        padding = (0, 0, 0, capacity - self.capacity)
        self.keys, self.values = (functional.pad(part, padding).contiguous() for part in (self.keys, self.values))

    def prefill(self, slots_R: torch.Tensor, prompt_R: torch.Tensor) -> Attend:
        """Causal attention over N prompts of P positions, which also copies prompt `prompt_R[r]` into slot `slots_R[r]`."""

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self.keys[layer, slots_R, :, : k.shape[2]] = k[prompt_R]
            self.values[layer, slots_R, :, : v.shape[2]] = v[prompt_R]
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

        return attend

    def step(self, positions_B: torch.Tensor, length: int) -> Attend:
        """Attention of one new position in each of the first B slots.

        Written out because fused kernels are slow on batched products of one row: on a CPU they take twice the time in
        float32, and three to four times in bfloat16.

        Args:
            positions_B: the new position of each slot.
            length: number of cached positions to attend to. The result of slots beyond it is undefined.
        """
        positions_B = positions_B.clamp(max=length - 1)
        B, H, width = len(positions_B), self.keys.shape[2], self.keys.shape[4]
        rows_B = torch.arange(B, device=positions_B.device)
        future_BL = torch.arange(length, device=positions_B.device) > positions_B[:, None]
        mask_BL = self.keys.new_zeros(B, length).masked_fill_(future_BL, float("-inf"))
        mask = mask_BL.repeat_interleave(H, dim=0)[:, None]  # (B · H, 1, L)

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            keys, values = self.keys[layer, :B], self.values[layer, :B]
            keys[rows_B, :, positions_B] = k[:, :, 0]
            values[rows_B, :, positions_B] = v[:, :, 0]
            keys, values = (part.flatten(0, 1)[:, :length] for part in (keys, values))
            queries = q.reshape(B * H, 1, width) * width**-0.5
            weights = torch.baddbmm(mask, queries, keys.transpose(1, 2)).softmax(dim=-1)
            return torch.bmm(weights, values).view(B, H, 1, width)

        return attend

    def move(self, slots: torch.Tensor, length: int) -> None:
        """Moves these slots, in ascending order, to the front, with their first `length` positions."""
        for part in (self.keys, self.values):
            for layer in part:
                layer[: len(slots), :, :length] = layer[slots, :, :length]


def slot_bytes(model: AutoRegressive, sampling: Sampling, longest_prompt: int) -> int:
    """The GPU memory of a slot: its cache, and what the loading of a prompt and the sampling take, by estimate.

    Args:
        model, sampling, longest_prompt: as in `Decoder`.
    """
    weight = model.head.weight
    V, D = weight.shape
    positions = -(-(longest_prompt + sampling.max_codes) // STATIC_BUCKET) * STATIC_BUCKET
    cached = 2 * len(model.blocks) * positions * D
    activations = 16 * longest_prompt * D  # of one layer: input, norm, q, k, v, output, and an MLP four times as wide
    return (cached + activations) * weight.element_size() + 8 * 4 * V  # float32 logits and their sorted copies


class Decoder:
    """Slots, each with a prompt and the codes drawn for it so far.

    A slot that has drawn its stop token or its last code does not change until it is loaded again.

    Args:
        model: the AR.
        sampling: sampling settings.
        num_slots: number of sequences drawn in parallel.
        longest_prompt: in positions, see `AutoRegressive.prompt`.
    """

    def __init__(self, model: AutoRegressive, sampling: Sampling, num_slots: int, longest_prompt: int) -> None:
        self.model, self.sampling, self.num_slots = model, sampling, num_slots
        weight = model.head.weight
        self.device, width, vocab_size = weight.device, model.head.in_features, model.head.out_features
        # CUDA graphs need a cache that never moves; a CPU is slow on the gaps of a cache that is larger than needed
        self.static = self.device.type == "cuda"
        self.bucket = (
            STATIC_BUCKET if self.static else 32
        )  # attention lengths are multiples of this; each needs its own graph
        capacity = self.rounded(longest_prompt + sampling.max_codes) if self.static else self.bucket
        shape = (len(model.blocks), num_slots, model.num_heads, capacity, width // model.num_heads)
        self.cache = KeyValueCache(shape, weight)
        # one unused column more than codes: slots that have ended write there
        self.codes_BS = torch.zeros(num_slots, sampling.max_codes + 1, dtype=torch.long, device=self.device)
        self.uniform_BS = torch.zeros(num_slots, sampling.max_codes + 1, device=self.device)
        self.penalised_BV = torch.zeros(num_slots, vocab_size, dtype=torch.bool, device=self.device)
        self.initial_V = self.penalised_BV[0].clone()
        self.initial_V[[*sampling.penalised_ids, model.start_speech]] = True
        self.code_B = torch.zeros(num_slots, dtype=torch.long, device=self.device)  # input of the next step
        self.step_B = torch.zeros_like(self.code_B)  # number of codes drawn, including the stop token
        self.prompt_B = torch.zeros_like(self.code_B)  # positions before the start token
        self.log_probability_B = torch.zeros(num_slots, device=self.device)
        self.active_B = torch.zeros_like(self.code_B, dtype=torch.bool)
        # steps between two checks for slots that have ended; each check synchronises with the device
        self.sync_every = 8 if self.static else 1
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}

    def fits(self, sampling: Sampling, num_slots: int, longest_prompt: int) -> bool:
        """Whether this decoder can be reused instead of a new one."""
        long_enough = not self.static or self.cache.capacity >= longest_prompt + sampling.max_codes
        return self.sampling == sampling and self.num_slots == num_slots and long_enough

    def clear(self) -> None:
        """Empties all slots, so that results do not depend, even by rounding, on what was drawn before."""
        self.active_B.zero_()
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
        """Loads prompts into slots.

        Args:
            slots: R slots.
            latents_ND: the conditioning latent of each prompt.
            texts: N lists of token ids.
            prompt_of_slot: the prompt of each slot; candidates of one text and voice share theirs.
            uniform_RS: random numbers of each slot, one per code.
        """
        slots_R, prompt_R = (torch.tensor(list(numbers), device=self.device) for numbers in (slots, prompt_of_slot))
        self._fit(max(len(text) for text in texts) + PROMPT_FRAME, shrink=False)
        x_NPD, lengths_N = self.model.prompt(latents_ND.to(self.device), texts)
        self.model.stack(x_NPD, self.cache.prefill(slots_R, prompt_R))
        self.prompt_B[slots_R] = lengths_N[prompt_R]
        self.code_B[slots_R] = self.model.start_speech
        self.step_B[slots_R] = 0
        self.log_probability_B[slots_R] = 0.0
        self.penalised_BV[slots_R] = self.initial_V
        self.uniform_BS[slots_R, :-1] = uniform_RS.to(self.device)
        self.active_B[slots_R] = True

    def step(self, num_slots: int, length: int) -> None:
        """Draws a code for each of the first `num_slots` slots.

        Args:
            length: number of cached positions that the longest active one of them attends to.
        """
        length = self.rounded(length)
        self._fit(length)
        if not self.static:
            self._step(num_slots, self.cache.capacity)
            return
        if (num_slots, length) not in self._graphs:
            self._graphs[num_slots, length] = self._capture(num_slots, length)
        self._graphs[num_slots, length].replay()

    def rounded(self, length: int) -> int:
        """`length` rounded up to a multiple of the bucket size."""
        return -(-length // self.bucket) * self.bucket

    def _fit(self, length: int, shrink: bool = True) -> None:
        length, capacity = self.rounded(length), self.cache.capacity
        if not self.static and (length > capacity or (shrink and length < capacity - self.bucket)):
            self.cache.resize(length)

    def _capture(self, num_slots: int, length: int) -> "torch.cuda.CUDAGraph":
        with torch.cuda.device(self.device):  # a graph is captured on the current device, and on a stream of it
            return self._captured(num_slots, length, torch.cuda.Stream())

    def _captured(self, num_slots: int, length: int, stream: "torch.cuda.Stream") -> "torch.cuda.CUDAGraph":
        if not self._graphs:  # libraries initialise on first use, which cannot be captured
            state = [tensor.clone() for tensor in self._state()]
            self._step(num_slots, length)
            for tensor, before in zip(self._state(), state):
                tensor.copy_(before)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self._graphs.values())).pool() if self._graphs else None
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            self._step(num_slots, length)
        return graph

    def _step(self, num_slots: int, length: int) -> None:
        state = (tensor[:num_slots] for tensor in self._state())
        codes_BS, uniform_BS, penalised_BV, code_B, step_B, prompt_B, log_probability_B, active_B = state
        step_B1 = step_B[:, None]
        embedded_B1D = self.model.speech_vectors(code_B[:, None], step_B1)
        x_B1D = self.model.stack(embedded_B1D, self.cache.step(prompt_B + step_B, length))
        uniform_B = uniform_BS.gather(1, step_B1)[:, 0]
        drawn_B, drawn_log_probability_B = next_codes(
            self.model.logits(x_B1D)[:, 0], penalised_BV, uniform_B, self.sampling
        )
        codes_BS.scatter_(1, step_B1, drawn_B[:, None])
        penalised_BV.scatter_(1, drawn_B[:, None], True)
        code_B.copy_(drawn_B)
        log_probability_B.add_(drawn_log_probability_B * active_B)
        step_B.add_(active_B)
        active_B.logical_and_((drawn_B != self.model.stop_speech) & (step_B < self.sampling.max_codes))

    def _state(self) -> tuple[torch.Tensor, ...]:
        drawing = self.codes_BS, self.uniform_BS, self.penalised_BV, self.code_B, self.step_B
        return *drawing, self.prompt_B, self.log_probability_B, self.active_B

    def move(self, slots: Sequence[int], length: int) -> None:
        """Moves these slots, in ascending order, to the front, with their first `length` cached positions."""
        slots_R = torch.tensor(list(slots), device=self.device)
        self.cache.move(slots_R, length)
        for tensor in self._state():
            tensor[: len(slots_R)] = tensor[slots_R]

    def ended(self, num_slots: int) -> list[int]:
        """Which of the first `num_slots` slots have ended. Synchronises with the device."""
        return (~self.active_B[:num_slots]).nonzero()[:, 0].tolist()

    def drawn(self, slots: Sequence[int]) -> list[tuple[list[int], float]]:
        """The codes of these slots, with their stop token if drawn, and their log-probabilities."""
        if not slots:
            return []
        slots_R = torch.tensor(list(slots), device=self.device)
        codes, steps = self.codes_BS[slots_R].tolist(), self.step_B[slots_R].tolist()
        return [
            (row[:step], log_probability)
            for row, step, log_probability in zip(codes, steps, self.log_probability_B[slots_R].tolist())
        ]
