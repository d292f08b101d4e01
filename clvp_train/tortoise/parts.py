"""What a frozen Tortoise is made of."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from transformers import ClvpFeatureExtractor, ClvpTokenizer

from clvp_train.errors import UserError
from clvp_train.tortoise.autoregressive import AutoRegressive
from clvp_train.tortoise.dvae import DiscreteVAE
from clvp_train.tortoise.sampling import Sampling


@dataclass(frozen=True)
class TortoiseParts:
    """The models, what prepares their input, and how codes are drawn.

    Raises:
        UserError: the DVAE has another codebook than the AR draws from.
    """

    autoregressive: AutoRegressive
    tokenizer: ClvpTokenizer
    feature_extractor: ClvpFeatureExtractor
    dvae: DiscreteVAE | None = None
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        drawn = self.autoregressive.start_speech
        if self.dvae is not None and self.dvae.config.num_tokens != drawn:
            raise UserError(
                f"the DVAE has {self.dvae.config.num_tokens} codes and the AR draws from {drawn}: give those trained together"
            )


def fill(model: torch.nn.Module, state: dict[str, torch.Tensor], misfit: str) -> None:
    """Loads weights into a model, or raises UserError: `misfit`, and the first weight that does not fit."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{misfit}: {str(error).splitlines()[1].strip()}") from None


def choose_sampling(settings: dict[str, Any], autoregressive: AutoRegressive) -> Sampling:
    """`Sampling` with these fields, cut to what the AR has ids and positions for. Raises UserError for a bad one."""
    vocab_size = autoregressive.head.out_features
    try:
        settings = {**settings, "penalised_ids": tuple(settings.get("penalised_ids", Sampling.penalised_ids))}
        sampling = Sampling(**settings)
        if not all(0 <= code < vocab_size for code in sampling.penalised_ids):
            raise ValueError(f"{sampling}: needs penalised_ids below {vocab_size}")
    except (TypeError, ValueError) as error:
        raise UserError(f"sampling: {error}; known settings: {[field.name for field in fields(Sampling)]}") from None
    return replace(sampling, max_codes=min(sampling.max_codes, autoregressive.max_codes))
