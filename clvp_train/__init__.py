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
]
