"""Sequences to padded batches, as a model is served. Shapes: B batch, T text length, S speech length, L either."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad as pad_end
from torch.nn.utils.rnn import pad_sequence

from clvp_train.tortoise.silence_padding import pad_with_silence

NO_CODE = -1


def pad(sequences: Sequence[torch.Tensor], multiple: int = 8, zeros: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-pads ids with 0 to a multiple of `multiple`: (B, L) ids and the (B, L) bool mask of what is real. The first `zeros`
    places behind a sequence count as real."""
    ids_BL = pad_sequence(list(sequences), batch_first=True)
    ids_BL = pad_end(ids_BL, (0, zeros + -(ids_BL.shape[1] + zeros) % multiple))
    lengths_B1 = torch.tensor([[len(sequence) + zeros] for sequence in sequences])
    return ids_BL, torch.arange(ids_BL.shape[1]) < lengths_B1


@dataclass(frozen=True)
class Padding:
    """How texts and codes become rows of one length."""

    padding: str = "mask"  # "mask": to the longest of the batch; "tortoise": what tortoise-tts gives CLVP
    max_codes: int = 500  # with "tortoise": codes that it serves

    def texts(self, sequences: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T) ids and mask."""
        # tortoise-tts ends a text with one 0, and takes one at a time, hence without padding
        return pad(sequences, zeros=1 if self.padding == "tortoise" else 0)

    def speech(self, sequences: Sequence[torch.Tensor], finished: Sequence[bool]) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, S) ids and mask. `finished` says of each whether the AR ended it itself."""
        if self.padding == "mask":
            return pad(sequences)
        codes_BS = pad_sequence(list(sequences), batch_first=True, padding_value=NO_CODE)
        codes_BS = pad_end(codes_BS, (0, self.max_codes - codes_BS.shape[1]), value=NO_CODE)  # or cuts
        # what ran into the AR's limit has no stop token from which on it could be made calm
        finished_B1, real_BS = torch.tensor(finished)[:, None], codes_BS != NO_CODE
        served_BS = torch.where(finished_B1, pad_with_silence(codes_BS, stop_token=NO_CODE), codes_BS * real_BS)
        return served_BS, real_BS | finished_B1
