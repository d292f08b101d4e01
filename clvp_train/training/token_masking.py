"""Hiding tokens in training. Shapes: B batch, L length."""

import torch


def hide(mask_BL: torch.Tensor, share: float) -> torch.Tensor:
    """The mask with a random share of its tokens left out, for attention and for the mean, so that no single one can be relied
    upon. Source: `text_mask_percentage` and `voice_mask_percentage` of tortoise-tts' `tortoise/models/clvp.py`.

    A row's first token always stays: positions count from it.
    """
    if share == 0:
        return mask_BL
    kept_BL = torch.rand(mask_BL.shape, device=mask_BL.device) >= share
    kept_BL[:, 0] = True
    return mask_BL & kept_BL
