import pytest
import torch

from clvp_train.models import CLVPConfig, CLVPModel


@pytest.fixture
def model() -> CLVPModel:
    torch.manual_seed(0)
    tower = {
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "initializer_range": 0.2,
    }
    return CLVPModel(CLVPConfig(text_config=tower, speech_config=tower, projection_dim=16))


@pytest.fixture
def batches() -> list[dict[str, torch.Tensor]]:
    """Four batches of six pairs."""
    draw = torch.Generator().manual_seed(1)

    def batch():
        lengths = torch.randint(3, 9, (6, 1), generator=draw)
        return {
            "input_ids": torch.randint(1, 40, (6, 5), generator=draw),
            "text_attention_mask": torch.ones(6, 5, dtype=torch.bool),
            "speech_ids": torch.randint(1, 40, (6, 8), generator=draw),
            "speech_attention_mask": torch.arange(8) < lengths,
            "text": torch.arange(6),
        }

    return [batch() for _ in range(4)]


@pytest.fixture
def trainer_settings(tmp_path):
    return {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": tmp_path,
    }
