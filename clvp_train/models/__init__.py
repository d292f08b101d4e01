"""CLVP as transformers models. Importing this package registers them with AutoConfig and AutoModel.

The model types are "clvp_train", "clvp_train_text" and "clvp_train_speech"; "clvp" remains transformers' own model.
"""

from transformers import AutoConfig, AutoModel

from .configuration_clvp import CLVPConfig, CLVPSpeechConfig, CLVPTextConfig
from .loading import load_clvp, move_to_device, resolve_checkpoint, weights_digest
from .modeling_clvp import (
    CLVPModel,
    CLVPOutput,
    CLVPPreTrainedModel,
    CLVPSpeechModel,
    CLVPSpeechModelOutput,
    CLVPSpeechModelWithProjection,
    CLVPTextModel,
    CLVPTextModelOutput,
    CLVPTextModelWithProjection,
)

for _config, _model in (
    (CLVPConfig, CLVPModel),
    (CLVPTextConfig, CLVPTextModel),
    (CLVPSpeechConfig, CLVPSpeechModel),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)

# `save_pretrained` also copies the two code files, so that transformers opens the model without this package
CLVPConfig.register_for_auto_class()
CLVPModel.register_for_auto_class("AutoModel")

__all__ = [
    "CLVPConfig",
    "CLVPModel",
    "CLVPOutput",
    "CLVPPreTrainedModel",
    "CLVPSpeechConfig",
    "CLVPSpeechModel",
    "CLVPSpeechModelOutput",
    "CLVPSpeechModelWithProjection",
    "CLVPTextConfig",
    "CLVPTextModel",
    "CLVPTextModelOutput",
    "CLVPTextModelWithProjection",
    "load_clvp",
    "move_to_device",
    "resolve_checkpoint",
    "weights_digest",
]
