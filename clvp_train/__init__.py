"""Training of CLVP, the scorer of (text, speech codes) pairs."""

import sys

# Hydra's flag of a shell that completes a word, which shall not wait for torch; and what is asked when torch is broken
WITHOUT_LIBRARIES = {"-sc", "clvp_train.doctor"}

broken: Exception | None = None  # why they cannot be loaded
if not WITHOUT_LIBRARIES & set(sys.orig_argv[1:]):
    try:
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
    except Exception as error:  # a torchaudio for another torch raises OSError or RuntimeError
        broken = error

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


def __getattr__(name: str) -> object:
    """Names of `__all__` that were left out above; ImportError if they cannot be loaded."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if broken is not None:
        raise ImportError(
            f"{name}: {type(broken).__name__}: {broken}; python -m clvp_train.doctor says how to mend it"
        ) from broken
    from clvp_train import models, reranker

    return getattr(models if hasattr(models, name) else reranker, name)
