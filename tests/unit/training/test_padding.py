"""Scores with padding=tortoise against those of tortoise-tts: one text at a time, codes of one length."""

import pytest
import torch

from clvp_train.data.collate import Collate
from clvp_train.models import CLVPConfig, CLVPModel, load_clvp
from clvp_train.training import CLVPModule, TrainingConfig

MAX_CODES = 20


@pytest.fixture
def served() -> CLVPModel:
    torch.manual_seed(0)
    tower = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    tower |= {"num_attention_heads": 1, "initializer_range": 0.2}
    return CLVPModel(CLVPConfig(text_config=tower, speech_config=tower, projection_dim=16, padding="tortoise")).eval()


def pairs():
    draw = torch.Generator().manual_seed(1)
    lengths = [(5, 12), (9, 3), (2, 19), (12, 20), (7, 8)]
    ids = [[torch.randint(1, 300, (length,), generator=draw) for length in both] for both in lengths]
    return [{"input_ids": text, "speech_ids": codes, "finished": n != 3} for n, (text, codes) in enumerate(ids)]


def as_served(pair):
    """By tortoise-tts' `api.py`: one 0 after the text; codes padded with silence that ends in 45, 45, 248."""
    text = torch.cat([pair["input_ids"], torch.zeros(1, dtype=torch.long)])
    codes = torch.full((MAX_CODES,), 83)
    codes[: len(pair["speech_ids"])] = pair["speech_ids"]
    if pair["finished"]:
        codes[-3:] = torch.tensor([45, 45, 248])
    return text[None], codes[None]


@pytest.mark.parametrize("chunk_tokens", [0, 48, 2048])
def test_a_batch_is_embedded_as_each_pair_is_served_alone(served, chunk_tokens):
    with torch.no_grad():
        alone = [served(*as_served(pair)) for pair in pairs()]
        module = CLVPModule(served, training=TrainingConfig(chunk_tokens)).eval()
        text, speech = module.batch_encoder.embed(Collate("tortoise", MAX_CODES)(pairs()))
    torch.testing.assert_close(text, torch.cat([output.text_embeds for output in alone]), atol=1e-5, rtol=0)
    torch.testing.assert_close(speech, torch.cat([output.speech_embeds for output in alone]), atol=1e-5, rtol=0)


def test_masks_would_come_to_something_else(served):
    with torch.no_grad():
        alone = torch.cat([served(*as_served(pair)).speech_embeds for pair in pairs()])
        _, speech = CLVPModule(served).eval().batch_encoder.embed(Collate("mask")(pairs()))
    assert (alone - speech).abs().max() > 0.05


def test_what_is_saved_says_that_it_is_served_without_masks(served, tmp_path):
    CLVPModule(served)
    served.save_pretrained(tmp_path / "model")
    for loaded in (load_clvp(tmp_path / "model"), CLVPModel(CLVPConfig(**served.config.to_dict()))):
        config = loaded.config
        assert {config.padding, config.text_config.padding, config.speech_config.padding} == {"tortoise"}
