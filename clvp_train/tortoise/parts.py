"""The parts of a frozen Tortoise, which the checkpoint modules read and `FrozenTortoise` uses."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import torch
from transformers import ClvpFeatureExtractor

from clvp_train.errors import UserError
from clvp_train.models import move_to_device
from clvp_train.tortoise.autoregressive import AutoRegressive
from clvp_train.tortoise.dvae import DiscreteVAE
from clvp_train.tortoise.sampling import Sampling
from clvp_train.tortoise.tokenizer import TortoiseTokenizer

Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TortoiseParts:
    """Models, preprocessing and sampling settings.

    Raises:
        UserError: the codebook of the DVAE does not match the vocabulary of the AR.
    """

    autoregressive: AutoRegressive
    tokenizer: TortoiseTokenizer
    feature_extractor: ClvpFeatureExtractor
    dvae: DiscreteVAE | None = None
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        num_codes = self.autoregressive.start_speech
        if self.dvae is not None and self.dvae.config.num_tokens != num_codes:
            raise UserError(
                f"tortoise: the DVAE has {self.dvae.config.num_tokens} codes and the AR {num_codes}. Use a DVAE and an AR "
                "that were trained together."
            )

    def to(self, device: str, dtype: Dtype) -> "TortoiseParts":
        """Moves the models to a device, and the AR to a dtype. Raises UserError if one is unknown or not available."""
        if dtype not in get_args(Dtype):
            raise UserError(f"tortoise.dtype={dtype}: unknown. Use one of {', '.join(get_args(Dtype))}.")
        for model in (self.autoregressive, self.dvae):
            if model is not None:
                move_to_device(model, device, "tortoise.device")
        self.autoregressive.to(getattr(torch, dtype))
        return self


def load_weights(model: torch.nn.Module, state: dict[str, torch.Tensor], error_prefix: str) -> None:
    """Loads a state dict. Raises UserError with `error_prefix` and the first weight that does not fit."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{error_prefix}: {str(error).splitlines()[1].strip()}") from None


def check_keys(complaint: str, missing: list[str], unknown: list[str], advice: str) -> None:
    """Raises UserError if a checkpoint lacks keys or has unknown ones."""
    if missing or unknown:
        raise UserError(
            f"{complaint}: {len(missing)} keys missing {missing[:3]}, {len(unknown)} unknown {unknown[:3]}. {advice}"
        )


def make_sampling(autoregressive: AutoRegressive, defaults: dict[str, Any], overrides: dict[str, Any]) -> Sampling:
    """Returns a `Sampling` with these fields, limited to the vocabulary and positions of the AR. An override of None leaves the
    default.

    Raises:
        UserError: a field is unknown or out of range.
    """
    vocab_size = autoregressive.head.out_features
    try:
        settings = defaults | {name: value for name, value in overrides.items() if value is not None}
        sampling = Sampling(
            **settings | {"penalised_ids": tuple(settings.get("penalised_ids", Sampling.penalised_ids))}
        )
        if not all(0 <= code < vocab_size for code in sampling.penalised_ids):
            raise ValueError(f"penalised_ids={sampling.penalised_ids} must be below {vocab_size}")
    except (TypeError, ValueError) as error:
        known = ", ".join(field.name for field in fields(Sampling))
        raise UserError(f"tortoise.sampling: {error}. Known settings: {known}.") from None
    return replace(sampling, max_codes=min(sampling.max_codes, autoregressive.max_codes))
