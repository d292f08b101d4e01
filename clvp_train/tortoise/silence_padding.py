"""The calm rule: what tortoise-tts writes over the tail of a candidate before CLVP or the diffusion decoder sees it."""

from collections.abc import Sequence

import torch

SILENCE_CODE = 83
SILENCE_TAIL = (45, 45, 248)


def pad_with_silence(
    codes_BS: torch.Tensor, stop_token: int, calm: int = SILENCE_CODE, tail: Sequence[int] = SILENCE_TAIL
) -> torch.Tensor:
    """Replaces everything from a row's first stop token on by calm, and its last codes by `tail`.

    The AR learns no silence after its stop token, while the diffusion decoder was trained on codes of clips that end in
    silence; `tail` is how the DVAE encodes the end of such a clip. A row without a stop token is left as it is. A stop token
    inside the last `len(tail)` codes gives the tail alone. Source: `fix_autoregressive_output` of tortoise-tts' `api.py`.

    Args:
        codes_BS: (B, S) codes, padded with `stop_token` to the length that shall be served.
        stop_token: the AR's stop token, 8193.
        calm: the code of silence.
        tail: the codes at a clip's end.

    Returns:
        (B, S) codes without a stop token in rows that had one.
    """
    stopped_BS = codes_BS == stop_token
    after_stop_BS = stopped_BS.cumsum(dim=1) > 0
    served_BS = codes_BS.masked_fill(after_stop_BS, calm)
    finished_B1 = stopped_BS.any(dim=1, keepdim=True)
    tail_length = min(len(tail), codes_BS.shape[1])
    if tail_length:
        tail_ids = codes_BS.new_tensor(tail)[len(tail) - tail_length :]
        served_BS[:, -tail_length:] = torch.where(finished_B1, tail_ids, served_BS[:, -tail_length:])
    return served_BS
