"""Silence padding, which Tortoise calls "calm": tortoise-tts overwrites the end of a candidate with the codes of silence before
it is scored or decoded."""

from collections.abc import Sequence

import torch

SILENCE_CODE = 83
SILENCE_TAIL = (45, 45, 248)


def pad_with_silence(
    codes_BS: torch.Tensor, stop_token: int, silence: int = SILENCE_CODE, tail: Sequence[int] = SILENCE_TAIL
) -> torch.Tensor:
    """Replaces all codes from a row's first stop token on by `silence`, and its last codes by `tail`.

    The AR does not learn silence after its stop token, but the diffusion decoder was trained on codes of clips that end in
    silence; `tail` is the DVAE's encoding of the end of such a clip. A row without a stop token is unchanged. A stop token
    within the last `len(tail)` codes gives the tail only. Source: `fix_autoregressive_output` in tortoise-tts' `api.py`.

    Args:
        codes_BS: (B, S) codes, padded with `stop_token`.
        stop_token: the AR's stop token, 8193.
        silence: the code of silence.
        tail: the codes at the end of a clip.

    Returns:
        (B, S) codes, without stop tokens.
    """
    stopped_BS = codes_BS == stop_token
    after_stop_BS = stopped_BS.cumsum(dim=1) > 0
    padded_BS = codes_BS.masked_fill(after_stop_BS, silence)
    finished_B1 = stopped_BS.any(dim=1, keepdim=True)
    tail_length = min(len(tail), codes_BS.shape[1])
    if tail_length:
        tail_ids = codes_BS.new_tensor(tail)[len(tail) - tail_length :]
        padded_BS[:, -tail_length:] = torch.where(finished_B1, tail_ids, padded_BS[:, -tail_length:])
    return padded_BS
