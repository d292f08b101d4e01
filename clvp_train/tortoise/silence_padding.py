"""Silence padding, which Tortoise calls "calm": tortoise-tts overwrites the end of a candidate with the codes of silence before
it is scored or decoded."""

from collections.abc import Sequence

import torch

SILENCE_CODE = 83
SILENCE_TAIL = (45, 45, 248)
IGNORED = (-100, -1)  # ids that other programs pad with


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


def strip_padding(codes_S: torch.Tensor, num_codes: int) -> torch.Tensor:
    """Removes what other programs add to the codes of a candidate: the start token, the first stop token and all after it,
    negative ids at the end, and silence padding as of `pad_with_silence`.

    Args:
        codes_S: (S,) integers.
        num_codes: size of the codebook; the start token has this id, and the stop token the next one, as in every AR.

    Returns:
        The first or middle codes of `codes_S`; all if nothing else remained.
    """
    start = int(codes_S[0] == num_codes)
    stops = (codes_S == num_codes + 1).nonzero()
    end = int(stops[0]) if len(stops) else len(codes_S)
    while end > start and codes_S[end - 1] in IGNORED:
        end -= 1
    tail = end - len(SILENCE_TAIL)
    if tail > start and codes_S[tail - 1] == SILENCE_CODE and tuple(codes_S[tail:end].tolist()) == SILENCE_TAIL:
        end = tail
        while end > start and codes_S[end - 1] == SILENCE_CODE:
            end -= 1
    return codes_S[start:end] if start < end else codes_S
