"""`clvp_train.export` in each format, by the pipeline that the command calls."""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from clvp_train import CLVPConfig, CLVPModel, CLVPProcessor
from clvp_train.errors import UserError
from clvp_train.models.export import encoders, largest_difference
from clvp_train.pipelines.export import export
from clvp_train.tortoise import FrozenTortoise

NANO = Path(__file__).parents[3] / "data/nano/tortoise"


@pytest.fixture
def checkpoint(tmp_path):
    """A model that all formats support, with its processor."""
    torch.manual_seed(0)
    tower = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 2}
    tower |= {"initializer_range": 0.2}
    config = CLVPConfig(text_config=tower, speech_config=tower | {"vocab_size": 2048}, projection_dim=128)
    CLVPModel(config).save_pretrained(tmp_path / "model")
    CLVPProcessor.for_model(config, FrozenTortoise.load_tokenizer(NANO)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def run(checkpoint, output, **settings):
    export(OmegaConf.create({"checkpoint": str(checkpoint), "output_dir": str(output), "base": None} | settings))


@pytest.mark.parametrize(
    ("settings", "files"),
    [
        ({"format": "tortoise"}, {"clvp2.pth"}),
        ({"format": "transformers", "base": str(NANO)}, {"config.json", "model.safetensors", "vocab.json"}),
    ],
    ids=lambda value: value.get("format") if isinstance(value, dict) else "",
)
def test_scores_of_the_export_are_compared_with_the_model(checkpoint, tmp_path, capsys, settings, files):
    run(checkpoint, tmp_path / "out", **settings)
    assert files <= {file.name for file in (tmp_path / "out").iterdir()}
    assert float(capsys.readouterr().out.split("at most ")[1].split()[0]) <= 1e-4
    model = CLVPModel.from_pretrained(checkpoint)
    with torch.no_grad():
        model.text_projection.weight += 0.01 * torch.randn(128, 128)
    assert largest_difference(model, encoders(CLVPModel.from_pretrained(checkpoint))) > 1e-4, (
        "the check must be able to fail"
    )


def test_programs_score_as_the_model_does(checkpoint, tmp_path):
    run(checkpoint, tmp_path / "out", format="torch")
    model, processor = CLVPModel.from_pretrained(checkpoint), CLVPProcessor.from_pretrained(tmp_path / "out")
    inputs = processor(text=["It was not so.", "And the light was good."], speech=[[5, 2, 7], [9, 1, 4, 4, 80]])
    text, speech = (torch.export.load(tmp_path / f"out/{tower}_encoder.pt2").module() for tower in ("text", "speech"))
    scale = json.loads((tmp_path / "out/export.json").read_text())["logit_scale"]
    embeds = text(inputs["input_ids"], inputs["attention_mask"].bool())
    embeds = embeds @ speech(inputs["speech_ids"], inputs["speech_attention_mask"].bool()).T
    torch.testing.assert_close(scale * embeds, model(**inputs).logits_per_text, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "transformers"}, "base=None: must be set"),
        ({"format": "torch", "base": str(NANO)}, "not used by format=torch"),
        ({"format": "torch", "output_dir": "model"}, "the checkpoint itself"),
    ],
)
def test_bad_settings_are_refused(checkpoint, tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        run(checkpoint, settings.pop("output_dir", "out"), **settings)


def test_a_model_that_the_format_does_not_support_is_one_line(tmp_path):
    tower = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    CLVPModel(CLVPConfig(text_config=tower, speech_config=tower)).save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match=r"^format=tortoise: tortoise-tts does not support this CLVP: .*head_dim"):
        run(tmp_path / "model", tmp_path / "out", format="tortoise")
