"""Initialises the embeddings of a CLVP from those of a Tortoise, so that similar codes and texts have similar embeddings.

Shapes: V vocabulary, C channels of the Tortoise, D hidden size of the CLVP.
"""

import torch
from torch import nn

from clvp_train.models import CLVPModel
from clvp_train.tortoise.frozen import FrozenTortoise


@torch.no_grad()
def warm_start(model: CLVPModel, tortoise: FrozenTortoise) -> None:
    """Replaces the embeddings of the speech codes by the entries of the DVAE's codebook, or the AR's code embeddings if
    no DVAE is there, and those of the text tokens by those of the AR, unless the texts have a custom tokenizer.

    Args:
        model: with random weights.
        tortoise: made the codes and tokens.
    """
    autoregressive, dvae = tortoise.autoregressive, tortoise.dvae
    codes_VC = autoregressive.speech_embedding.weight if dvae is None else dvae.codebook.embed.T
    _replace(model.speech_model.token_embedding, codes_VC[: tortoise.num_speech_tokens])
    if tortoise.custom_tokenizer is None:
        _replace(model.text_model.token_embedding, autoregressive.text_embedding.weight)


def _replace(embedding: nn.Embedding, vectors_VC: torch.Tensor) -> None:
    """With C > D, takes the first D principal components; with C < D, the last D - C components stay random. The scale stays
    that of the random values."""
    weight_VD = embedding.weight
    vectors_VC = vectors_VC[: len(weight_VD)].to(weight_VD)
    vectors_VC = vectors_VC - vectors_VC.mean(dim=0)
    if vectors_VC.shape[1] > weight_VD.shape[1]:
        axes_CC = torch.linalg.svd(vectors_VC, full_matrices=False).Vh.T
        vectors_VC = vectors_VC @ axes_CC[:, : weight_VD.shape[1]]
    rows, columns = vectors_VC.shape
    weight_VD[:rows, :columns] = vectors_VC * (weight_VD.std() / vectors_VC.std())
