"""Pairs to padded batches. Shapes: B batch, T text length, S speech length."""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence


def pad(sequences: Sequence[torch.Tensor], multiple: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-pads ids with 0 to a multiple of `multiple`: (B, L) ids and the (B, L) bool mask of what is real."""
    ids_BL = pad_sequence(list(sequences), batch_first=True)
    ids_BL = torch.nn.functional.pad(ids_BL, (0, -ids_BL.shape[1] % multiple))
    lengths_B1 = torch.tensor([[len(sequence)] for sequence in sequences])
    return ids_BL, torch.arange(ids_BL.shape[1]) < lengths_B1


def collate(pairs: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """{"input_ids": (B, T), "text_attention_mask": (B, T), "speech_ids": (B, S), "speech_attention_mask": (B, S)}, and
    "text": (B,) if the pairs say which text they are of."""
    input_ids, text_mask = pad([pair["input_ids"] for pair in pairs])
    speech_ids, speech_mask = pad([pair["speech_ids"] for pair in pairs])
    batch = {
        "input_ids": input_ids,
        "text_attention_mask": text_mask,
        "speech_ids": speech_ids,
        "speech_attention_mask": speech_mask,
    }
    if "text" in pairs[0]:
        batch["text"] = torch.stack([pair["text"] for pair in pairs])
    return batch
