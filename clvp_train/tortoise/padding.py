"""Pads texts and codes as a model is served. Imports torch only: together with `processing_clvp.py` this
file is uploaded to the Hub as remote code.

Shapes: B batch, T text length, S speech length, L either.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad as pad_end
from torch.nn.utils.rnn import pad_sequence

from .silence_padding import pad_with_silence

NO_CODE = -1


def pad(sequences: Sequence[torch.Tensor], multiple: int = 8, zeros: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-pads ids with 0 to a multiple of `multiple`. Returns (B, L) ids and a (B, L) bool mask of the real positions, which
    include the first `zeros` positions after each sequence."""
    ids_BL = pad_sequence(list(sequences), batch_first=True)
    ids_BL = pad_end(ids_BL, (0, zeros + -(ids_BL.shape[1] + zeros) % multiple))
    lengths_B1 = torch.tensor([[len(sequence) + zeros] for sequence in sequences])
    return ids_BL, torch.arange(ids_BL.shape[1]) < lengths_B1


@dataclass(frozen=True)
class Padding:
    """Pads texts and codes as the model will be served."""

    padding: str = "mask"  # "mask": to the longest of the batch; "tortoise": as tortoise-tts calls CLVP
    max_codes: int = 500  # with "tortoise": length of the codes

    def texts(self, sequences: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T) ids and mask."""
        # tortoise-tts appends one 0 to a text and encodes one text at a time, so without padding
        return pad(sequences, zeros=1 if self.padding == "tortoise" else 0)

    def speech(self, sequences: Sequence[torch.Tensor], finished: Sequence[bool]) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, S) ids and mask. `finished` says for each sequence whether the AR ended it with a stop token."""
        if self.padding == "mask":
            return pad(sequences)
        codes_BS = pad_sequence(list(sequences), batch_first=True, padding_value=NO_CODE)
        codes_BS = pad_end(
            codes_BS, (0, self.max_codes - codes_BS.shape[1]), value=NO_CODE
        )  # a negative width truncates
        # an unfinished sequence has no stop token, after which tortoise-tts would write silence
        finished_B1, real_BS = torch.tensor(finished)[:, None], codes_BS != NO_CODE
        served_BS = torch.where(finished_B1, pad_with_silence(codes_BS, stop_token=NO_CODE), codes_BS * real_BS)
        return served_BS, real_BS | finished_B1
