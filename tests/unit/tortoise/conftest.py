"""A Tortoise with random weights of order 1, small enough for the CPU, and the bundled nano Tortoise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ClvpConfig, ClvpFeatureExtractor, ClvpTokenizer

from clvp_train.tortoise import FrozenTortoise, Sampling, TortoiseParts
from clvp_train.tortoise.autoregressive import AutoRegressive
from clvp_train.tortoise.dvae import DiscreteVAE, DVAEConfig

NANO = Path(__file__).parents[3] / "data" / "nano"
WIDTH, START, STOP = 64, 96, 97


def _make_config(**decoder: Any) -> ClvpConfig:
    stack = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "num_mel_attn_blocks": 1}
    ids = {"vocab_size": STOP + 1, "bos_token_id": START, "eos_token_id": STOP}
    places = {"max_position_embeddings": 202, "max_text_tokens": 70}
    encoder = {"hidden_size": 64, "intermediate_size": 64, "projection_dim": 64, "num_hidden_layers": 1}
    return ClvpConfig(
        text_config={"vocab_size": 256, "num_attention_heads": 1, **encoder},
        speech_config={"vocab_size": START, "num_attention_heads": 1, **encoder},
        decoder_config={**stack, **ids, **places, **decoder},
    )


@torch.no_grad()
def _make_model(positions: str = "served", stop_bias: float = 0.0, **decoder: Any) -> AutoRegressive:
    """Activations of order 1, sharp attention and logits: whatever a row must not see would change its codes."""
    model = AutoRegressive(_make_config(**decoder), positions).eval().requires_grad_(False)
    draw = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "embedding" in name or "position" in name:
            parameter.normal_(generator=draw)
        elif parameter.ndim > 1:
            parameter.normal_(std=WIDTH**-0.5, generator=draw)
        else:
            parameter.normal_(mean=0.0 if name.endswith("bias") else 1.0, std=0.2, generator=draw)
    for block in model.blocks:
        block.attn.c_attn.weight[:, :WIDTH].mul_(3.0)
    model.speech_position.weight.mul_(0.3)
    model.head.weight.mul_(2.0)
    model.head.bias[STOP] = stop_bias
    return model


@pytest.fixture
def make_config() -> Callable[..., ClvpConfig]:
    return _make_config


@pytest.fixture
def make_model() -> Callable[..., AutoRegressive]:
    return _make_model


@pytest.fixture(scope="session")
def random_tortoise(tmp_path_factory: pytest.TempPathFactory) -> FrozenTortoise:
    """All parts, saved and opened again."""
    torch.manual_seed(0)
    dvae = DiscreteVAE(DVAEConfig(num_tokens=START, codebook_dim=8, hidden_dim=12, num_res_blocks=1))
    parts = TortoiseParts(
        autoregressive=_make_model(stop_bias=1.0),
        tokenizer=ClvpTokenizer.from_pretrained(NANO / "tortoise"),
        feature_extractor=ClvpFeatureExtractor.from_pretrained(NANO / "tortoise"),
        dvae=dvae,
        sampling=Sampling(max_codes=120),
    )
    folder = tmp_path_factory.mktemp("tortoise")
    FrozenTortoise(parts, folder).save_pretrained(folder)
    return FrozenTortoise.from_pretrained(folder)


@pytest.fixture(scope="session")
def nano() -> FrozenTortoise:
    return FrozenTortoise.from_pretrained(NANO / "tortoise")


@pytest.fixture(scope="session")
def nano_folder() -> Path:
    return NANO


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    return (NANO / "sentences.txt").read_text().splitlines()
