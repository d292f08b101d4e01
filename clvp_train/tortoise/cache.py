"""Keys and values of many sequences of different lengths, side by side.

Shapes: B slots, N prompts, R slots that are loaded, H heads, P prompt length, L cached places, D width.
"""

import torch
from torch.nn import functional

from clvp_train.tortoise.autoregressive import Attend


class KeyValueCache:
    """Keys and values, (layers, B, H, L, D / H) each. Every slot holds one sequence from place 0 on.

    Nothing is cleared when a slot changes hands: a sequence attends to its own places alone, and has written each of them
    before.
    """

    def __init__(self, shape: tuple[int, int, int, int, int], like: torch.Tensor) -> None:
        # zeros, as what is masked still counts if it is no number
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    def resize(self, places: int) -> None:
        """Grows or cuts every slot to so many places."""
        padding = (0, 0, 0, places - self.capacity)
        self.keys, self.values = (functional.pad(part, padding).contiguous() for part in (self.keys, self.values))

    def prefill(self, slots_R: torch.Tensor, prompt_R: torch.Tensor) -> Attend:
        """Causal attention over N prompts of P places, which copies prompt `prompt_R[r]` into slot `slots_R[r]`."""

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self.keys[layer, slots_R, :, : k.shape[2]] = k[prompt_R]
            self.values[layer, slots_R, :, : v.shape[2]] = v[prompt_R]
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

        return attend

    def step(self, places_B: torch.Tensor, length: int) -> Attend:
        """Attention of one new position in each of the first B slots.

        Written out, as batched products of one row are where the fused kernels are slow: on a CPU they take twice the time in
        float32, and three to four times in bfloat16.

        Args:
            places_B: where each slot's position stands.
            length: how many cached places are looked at. Slots that stand beyond come to nothing.
        """
        places_B = places_B.clamp(max=length - 1)
        B, H, width = len(places_B), self.keys.shape[2], self.keys.shape[4]
        rows_B = torch.arange(B, device=places_B.device)
        unseen_BL = torch.arange(length, device=places_B.device) > places_B[:, None]
        mask_BL = self.keys.new_zeros(B, length).masked_fill_(unseen_BL, float("-inf"))
        mask = mask_BL.repeat_interleave(H, dim=0)[:, None]  # (B · H, 1, L)

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            keys, values = self.keys[layer, :B], self.values[layer, :B]
            keys[rows_B, :, places_B] = k[:, :, 0]
            values[rows_B, :, places_B] = v[:, :, 0]
            keys, values = (part.flatten(0, 1)[:, :length] for part in (keys, values))
            queries = q.reshape(B * H, 1, width) * width**-0.5
            weights = torch.baddbmm(mask, queries, keys.transpose(1, 2)).softmax(dim=-1)
            return torch.bmm(weights, values).view(B, H, 1, width)

        return attend

    def move(self, slots: torch.Tensor, length: int) -> None:
        """Moves these slots, in ascending order, to the front, with their first `length` places."""
        for part in (self.keys, self.values):
            for layer in part:
                layer[: len(slots), :, :length] = layer[slots, :, :length]
