"""Training of CLVP, the scorer of (text, speech codes) pairs."""

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
from clvp_train.reranker import Ranking, Reranker

__all__ = [
    "CLVPConfig",
    "CLVPModel",
    "CLVPOutput",
    "CLVPSpeechConfig",
    "CLVPSpeechModel",
    "CLVPSpeechModelWithProjection",
    "CLVPTextConfig",
    "CLVPTextModel",
    "CLVPTextModelWithProjection",
    "Ranking",
    "Reranker",
]
