"""Pairs to padded batches. Shapes: B batch, T text length, S speech length, L either, K negatives a pair, M = B · K."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import torch
from torch.nn.functional import pad as pad_end
from torch.nn.utils.rnn import pad_sequence

from clvp_train.tortoise.silence_padding import pad_with_silence

NO_CODE = -1
Batch = dict[str, torch.Tensor]


class Pair(TypedDict):
    """One text with one sequence of speech codes."""

    input_ids: torch.Tensor  # (T,)
    speech_ids: torch.Tensor  # (S,)
    finished: bool  # False: the AR reached its limit of codes
    key: NotRequired[int]  # in training: equal for equal texts
    negatives: NotRequired[list[tuple[torch.Tensor, bool]]]  # in training: K (S,) codes and whether they are finished
    qualities: NotRequired[list[float]]  # in training: of the codes and of each negative; NaN if unknown
    text: NotRequired[int]  # in evaluation: the number of the text


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
        # tortoise-tts appends one 0 to a text and encodes one text at a time, hence without padding
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


@dataclass(frozen=True)
class Collate(Padding):
    """Collates pairs into a batch.

    The batch has "input_ids" and "text_attention_mask" (B, T), "speech_ids" and "speech_attention_mask" (B, S); "key" and
    "text" (B,) if the pairs have them; "negative_ids" and "negative_attention_mask" (M, S) if they have negatives, those of a
    pair in consecutive rows; "qualities" (B, 1 + K) float32 if they have them. S may differ between codes and negatives.
    """

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
            negatives = [negative for pair in pairs for negative in pair["negatives"]]
            batch["negative_ids"], batch["negative_attention_mask"] = self.speech(*zip(*negatives))
        if "qualities" in pairs[0]:
            batch["qualities"] = torch.tensor([pair["qualities"] for pair in pairs])
        return batch
