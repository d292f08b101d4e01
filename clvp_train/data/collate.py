"""Pairs to padded batches. Shapes: B batch, T text length, S speech length, M hard negatives of the batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from clvp_train.data.dataset import Pair
from clvp_train.data.padding import Padding

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Collate(Padding):
    """Makes of pairs a batch of "input_ids" and "text_attention_mask" (B, T), "speech_ids" and "speech_attention_mask" (B, S),
    "key" and "text" (B,) if the pairs have them, and of their hard negatives "negative_ids" and "negative_attention_mask"
    (M, S), M = B · K, those of a pair one after another. S may differ between codes and negatives."""

    def __call__(self, pairs: Sequence[Pair]) -> Batch:
        input_ids, text_mask = self.texts([pair["input_ids"] for pair in pairs])
        finished = [pair["finished"] for pair in pairs]
        speech_ids, speech_mask = self.speech([pair["speech_ids"] for pair in pairs], finished)
        batch = {
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
            negatives = [(codes_S, pair["finished"]) for pair in pairs for codes_S in pair["negatives"]]
            batch["negative_ids"], batch["negative_attention_mask"] = self.speech(*zip(*negatives))
        return batch
