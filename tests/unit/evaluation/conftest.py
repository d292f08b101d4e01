"""Held-out pairs whose codes encode the text: token n becomes codes 2n and 2n + 1."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from clvp_train.data.collate import Collate
from clvp_train.evaluation import Embedder
from clvp_train.evaluation.held_out import CandidateSets, HeldOut
from clvp_train.models import CLVPConfig, CLVPModel
from clvp_train.tortoise import FrozenTortoise
from clvp_train.training import CLVPModule, TrainingConfig

NANO = Path(__file__).parents[3] / "data" / "nano"


@pytest.fixture(scope="session")
def tortoise() -> FrozenTortoise:
    return FrozenTortoise.from_pretrained(NANO / "tortoise")


@pytest.fixture
def held_out() -> Callable[..., HeldOut]:
    def make(size: int = 23, seed: int = 0) -> HeldOut:
        rng = np.random.default_rng(seed)
        texts = [rng.integers(1, 20, rng.integers(3, 9)) for _ in range(size)]
        return HeldOut(
            texts=[" ".join(f"w{token}" for token in text) for text in texts],
            input_ids=texts,
            codes=[np.stack([2 * text, 2 * text + 1], axis=1).flatten() for text in texts],
            finished=[number % 4 != 3 for number in range(size)],
            voices=[f"v{number % 3}" for number in range(size)],
            log_probabilities=-rng.random(size) * 10,
        )

    return make


@pytest.fixture
def candidate_sets(held_out) -> CandidateSets:
    """Three candidates of the first five texts, two of the others; only the first candidate is that of its text."""
    pairs, sizes = held_out(12), [3] * 5 + [2] * 7
    rows = [row for row, size in enumerate(sizes) for _ in range(size)]
    codes = [pairs.codes[(row + candidate) % 12] for row, size in enumerate(sizes) for candidate in range(size)]
    spread = HeldOut(
        [pairs.texts[row] for row in rows],
        [pairs.input_ids[row] for row in rows],
        codes,
        [True] * len(rows),
        [f"v{number % 2}" for number in range(len(rows))],
        -np.arange(1.0, len(rows) + 1),
    )
    return CandidateSets(spread, sizes)


@pytest.fixture
def model() -> CLVPModel:
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 1}
    tower |= {"vocab_size": 48, "initializer_range": 0.2}
    return CLVPModel(CLVPConfig(text_config=tower, speech_config=tower, projection_dim=16)).eval()


@pytest.fixture
def trainer(tmp_path) -> L.Trainer:
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    return L.Trainer(accelerator="cpu", enable_checkpointing=False, default_root_dir=tmp_path, **quiet)


@pytest.fixture
def embedder(model, trainer) -> Embedder:
    module = CLVPModule(model, training=TrainingConfig(chunk_tokens=64)).eval()
    return Embedder(module, trainer, Collate(), batch_size=5)
