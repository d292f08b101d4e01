"""A CLVP small enough for the CPU, whose activations are of order 1 so that differences show."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clvp_train.models import CLVPConfig, CLVPModel

TEXT_VOCABULARY, SPEECH_VOCABULARY = 64, 96


def _make_config(**fields: Any) -> CLVPConfig:
    """Two small towers of different widths; `fields` apply to both."""
    tower = {"num_hidden_layers": 2, "projection_dim": 24, "initializer_range": 0.2} | fields
    text = {"vocab_size": TEXT_VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
    speech = {"vocab_size": SPEECH_VOCABULARY, "hidden_size": 128, "intermediate_size": 64, "num_attention_heads": 2}
    return CLVPConfig(
        text_config=text | {"pad_token_id": 0, "bos_token_id": 1} | tower,
        speech_config=speech | tower,
    )


def _make_model(attention: str = "sdpa", **fields: Any) -> CLVPModel:
    torch.manual_seed(0)
    config = _make_config(**fields)
    config._attn_implementation = attention
    return CLVPModel(config).eval()


@pytest.fixture
def make_config() -> Callable[..., CLVPConfig]:
    return _make_config


@pytest.fixture
def make_model() -> Callable[..., CLVPModel]:
    return _make_model


@pytest.fixture
def model() -> CLVPModel:
    return _make_model()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Three unpadded pairs: T = 7, S = 13."""
    draw = torch.Generator().manual_seed(1)
    return {
        "input_ids": torch.randint(1, TEXT_VOCABULARY, (3, 7), generator=draw),
        "speech_ids": torch.randint(1, SPEECH_VOCABULARY, (3, 13), generator=draw),
    }
