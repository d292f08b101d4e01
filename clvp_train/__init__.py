"""Training of CLVP, the model that scores how well speech codes say a text."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clvp_train.inference.reranker import Ranking, Reranker
    from clvp_train.models import (
        CLVPConfig,
        CLVPModel,
        CLVPOutput,
        CLVPSpeechConfig,
        CLVPSpeechModel,
        CLVPSpeechModelWithProjection,
        CLVPTextConfig,
        CLVPTextModel,
        CLVPTextModelWithProjection,
    )
    from clvp_train.tortoise.processing_clvp import CLVPProcessor

__all__ = [
    "CLVPConfig",
    "CLVPModel",
    "CLVPOutput",
    "CLVPProcessor",
    "CLVPSpeechConfig",
    "CLVPSpeechModel",
    "CLVPSpeechModelWithProjection",
    "CLVPTextConfig",
    "CLVPTextModel",
    "CLVPTextModelWithProjection",
    "Ranking",
    "Reranker",
]


def __getattr__(name: str) -> object:
    # on first use, so that --help, shell completion and the doctor do not import torch
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = {"CLVPProcessor": "tortoise", "Ranking": "inference.reranker", "Reranker": "inference.reranker"}
    module = modules.get(name, "models")
    return getattr(import_module(f"clvp_train.{module}"), name)
