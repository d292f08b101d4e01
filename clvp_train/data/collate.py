"""Pairs to padded batches. Shapes: B batch, T text length, S speech length, L either, K negatives a pair, M = B · K."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import torch

from clvp_train.tortoise.padding import Padding

Batch = dict[str, Any]  # tensors, and arrays that stay on the host, see `Collate`


class Pair(TypedDict):
    """One text with one sequence of speech codes."""

    input_ids: torch.Tensor  # (T,)
    speech_ids: torch.Tensor  # (S,)
    finished: bool  # False: the AR reached its limit of codes
    key: NotRequired[int]  # in training: equal for equal texts
    negatives: NotRequired[list[tuple[torch.Tensor, bool]]]  # in training: K (S,) codes and whether they are finished
    qualities: NotRequired[list[float]]  # in training: of the codes and of each negative; NaN if unknown
    text: NotRequired[int]  # in evaluation: the number of the text


@dataclass(frozen=True)
class Collate(Padding):
    """Collates pairs into a batch.

    The batch has "input_ids" and "text_attention_mask" (B, T), "speech_ids" and "speech_attention_mask" (B, S); "key" and
    "text" (B,) if the pairs have them; "negative_ids" and "negative_attention_mask" (M, S) if they have negatives, those of a
    pair in consecutive rows; "qualities" (B, 1 + K) float32 if they have them. S may differ between codes and negatives.

    "text_lengths", "speech_lengths" (B,) and "negative_lengths" (M,) are NumPy arrays of the real positions of each row, so
    that they stay on the host when the batch goes to a device, which need not be asked for them.
    """

    def __call__(self, pairs: Sequence[Pair]) -> Batch:
        input_ids, text_mask = self.texts([pair["input_ids"] for pair in pairs])
        finished = [pair["finished"] for pair in pairs]
        speech_ids, speech_mask = self.speech([pair["speech_ids"] for pair in pairs], finished)
        batch: Batch = {
            "input_ids": input_ids,
            "text_attention_mask": text_mask,
            "speech_ids": speech_ids,
            "speech_attention_mask": speech_mask,
        }
        if "key" in pairs[0]:
            batch["key"] = torch.tensor([pair["key"] for pair in pairs])
        if "text" in pairs[0]:
            batch["text"] = torch.tensor([pair["text"] for pair in pairs])
        if "negatives" in pairs[0]:
            negatives = [negative for pair in pairs for negative in pair["negatives"]]
            batch["negative_ids"], batch["negative_attention_mask"] = self.speech(*zip(*negatives))
        if "qualities" in pairs[0]:
            batch["qualities"] = torch.tensor([pair["qualities"] for pair in pairs])
        masks = [name for name in batch if name.endswith("_attention_mask")]
        return batch | {name.replace("attention_mask", "lengths"): batch[name].sum(1).numpy() for name in masks}
