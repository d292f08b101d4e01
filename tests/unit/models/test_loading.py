"""`load_clvp` over every kind of checkpoint, and over what is none."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, ClvpConfig, ClvpModelForConditionalGeneration

from clvp_train.errors import UserError
from clvp_train.models import CLVPConfig, CLVPModel, load_clvp
from clvp_train.models.loading import CONFIG_KEY, MODEL_PREFIX


def write_ckpt(model, path, **extra):
    weights = {f"{MODEL_PREFIX}{key}": tensor for key, tensor in model.state_dict().items()}
    torch.save({"state_dict": weights, CONFIG_KEY: model.config.to_dict()} | extra, path)
    return path


def write_folder(model, path):
    model.save_pretrained(path)
    return path


def same(loaded, model, batch):
    return torch.equal(loaded(**batch).logits_per_text, model(**batch).logits_per_text)


@pytest.mark.parametrize(("name", "write"), [("a.ckpt", write_ckpt), ("folder", write_folder)])
def test_own_formats_give_the_same_scores(model, batch, tmp_path, name, write):
    model.config.padding = "tortoise"
    loaded = load_clvp(write(model, tmp_path / name))
    assert same(loaded, model, batch) and not loaded.training
    assert loaded.config.padding == "tortoise" and loaded.dtype == torch.float32


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_file_of_tortoise_tts_opens_under_any_name(batch, tmp_path, suffix):
    tower = {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 256, "num_hidden_layers": 1}
    config = CLVPConfig(
        text_config=tower | {"vocab_size": 64},
        speech_config=tower | {"vocab_size": 96},
        projection_dim=24,
        padding="tortoise",
    )
    model = CLVPModel(config).eval()
    path = tmp_path / f"clvp2{suffix}"
    model.save_tortoise(path)
    loaded = load_clvp(path)
    assert same(loaded, model, batch) and loaded.config.padding == "tortoise"


def test_a_composite_folder_of_transformers_opens(batch, tmp_path):
    tower = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 1, "num_hidden_layers": 1}
    tower |= {"projection_dim": 64}
    config = ClvpConfig(
        text_config=tower | {"vocab_size": 64},
        speech_config=tower | {"vocab_size": 96},
        decoder_config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 98},
        projection_dim=64,
    )
    theirs = ClvpModelForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path)
    loaded = load_clvp(tmp_path)
    assert torch.equal(loaded.text_projection.weight, theirs.text_encoder_model.projection.weight)
    assert loaded.config.text_config.rms_norm == "transformers" and loaded(**batch).logits_per_text.shape == (3, 3)


def test_a_setting_may_be_changed_on_the_way(model, tmp_path):
    loaded = load_clvp(write_folder(model, tmp_path), config={"padding": "tortoise"})
    assert loaded.config.padding == loaded.text_model.config.padding == "tortoise"


def refused(path, *words):
    with pytest.raises(UserError) as error:
        load_clvp(path)
    message = str(error.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message, message
    return message


@pytest.mark.parametrize("name", ["a.ckpt", "clvp2.pth", "b.pt"])
def test_a_missing_file_is_named(tmp_path, name):
    refused(tmp_path / name, "not found", "Use a .ckpt")


def test_a_missing_folder_is_named(tmp_path):
    refused(tmp_path / "no" / "folder", "not a folder")


@pytest.mark.parametrize("suffix", [".ckpt", ".pth"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint at all\n", b"PK\x03\x04 half a zip", bytes(range(256)) * 9])
def test_a_file_that_torch_cannot_read_is_named(tmp_path, suffix, content):
    path = tmp_path / f"notes{suffix}"
    path.write_bytes(content)
    refused(path, "not a CLVP", "Use a .ckpt")


@pytest.mark.parametrize("suffix", [".ckpt", ".pth"])
@pytest.mark.parametrize(
    "stored", [{"state_dict": {"a": torch.zeros(2)}}, {"weight": torch.zeros(2)}, [torch.zeros(2)], torch.zeros(2), 3]
)
def test_a_checkpoint_of_another_model_is_named(tmp_path, suffix, stored):
    torch.save(stored, tmp_path / f"other{suffix}")
    refused(tmp_path / f"other{suffix}", "not a CLVP")


def test_a_ckpt_whose_weights_or_config_do_not_fit_is_named(model, tmp_path):
    refused(write_ckpt(model, tmp_path / "a.ckpt", state_dict={"model.logit_scale": torch.zeros(())}), "Missing key")
    refused(write_ckpt(model, tmp_path / "b.ckpt", clvp_config={"text_config": 3}), "not a CLVP")


def test_a_folder_of_another_model_is_named(tmp_path):
    tiny = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(tiny).save_pretrained(tmp_path)
    refused(tmp_path, "'bert'")


def test_a_folder_of_one_tower_is_named(model, tmp_path):
    model.text_model.save_pretrained(tmp_path)
    refused(tmp_path, "'clvp_train_text'")


def test_a_folder_without_config_or_with_a_broken_one_is_named(tmp_path):
    refused(tmp_path, "no config.json")
    for text in ("{", "[1]", '"clvp"'):
        (tmp_path / "config.json").write_text(text)
        refused(tmp_path, "not a CLVP")


def test_a_folder_whose_weights_are_missing_incomplete_or_damaged_is_named(model, tmp_path):
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["text_projection.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    refused(tmp_path, "weights are missing", "text_projection.weight")
    file.write_bytes(file.read_bytes()[:200])
    refused(tmp_path, "not a CLVP")
    file.unlink()
    refused(tmp_path, "not a CLVP")


def test_weights_of_another_size_are_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["vocab_size"] += 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    refused(tmp_path, "not a CLVP")
