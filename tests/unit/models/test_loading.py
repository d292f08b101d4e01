"""`load_clvp` for every kind of checkpoint, and for files and folders of other kinds."""

import json
from random import Random

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, ClvpConfig, ClvpModelForConditionalGeneration

from clvp_train.errors import UserError
from clvp_train.models import load_clvp
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
def test_a_file_of_tortoise_tts_opens_under_any_name(make_model, batch, tmp_path, suffix):
    model = make_model(hidden_size=128, intermediate_size=256)
    model.config.padding = "tortoise"
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


def test_fields_of_the_config_can_be_overridden(model, tmp_path):
    loaded = load_clvp(write_folder(model, tmp_path), config={"padding": "tortoise"})
    assert loaded.config.padding == loaded.text_model.config.padding == "tortoise"


def assert_refused(path, *words):
    with pytest.raises(UserError) as error:
        load_clvp(path)
    message = str(error.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message, message


def test_missing_checkpoints(tmp_path):
    for name in ("a.ckpt", "clvp2.pth", "b.pt"):
        assert_refused(tmp_path / name, "not found", "Use a .ckpt")
    assert_refused(tmp_path / "no" / "folder", "not a folder")


@pytest.mark.parametrize("suffix", [".ckpt", ".pth"])
def test_files_of_another_kind(tmp_path, suffix):
    path = tmp_path / f"other{suffix}"
    for content in (b"", b"not a checkpoint\n", b"PK\x03\x04 truncated zip", bytes(range(256)) * 9):
        path.write_bytes(content)
        assert_refused(path, "not a CLVP", "Use a .ckpt")
    for stored in ({"state_dict": {"a": torch.zeros(2)}}, {"weight": torch.zeros(2)}, [torch.zeros(2)], 3):
        torch.save(stored, path)
        assert_refused(path, "not a CLVP")


def test_a_ckpt_whose_weights_or_config_do_not_fit(model, tmp_path):
    path = write_ckpt(model, tmp_path / "a.ckpt", state_dict={"model.logit_scale": torch.zeros(())})
    assert_refused(path, "Missing key")
    assert_refused(write_ckpt(model, tmp_path / "b.ckpt", clvp_config={"text_config": 3}), "not a CLVP")


def test_folders_of_another_kind(model, tmp_path):
    assert_refused(tmp_path, "no config.json")
    for text in ("{", "[1]", '"clvp"'):
        (tmp_path / "config.json").write_text(text)
        assert_refused(tmp_path, "not a CLVP")
    model.text_model.save_pretrained(tmp_path / "tower")
    assert_refused(tmp_path / "tower", "'clvp_train_text'")
    tiny = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(tiny).save_pretrained(tmp_path / "bert")
    assert_refused(tmp_path / "bert", "'bert'")


def test_code_in_the_weights_of_a_folder_is_neither_executed_nor_recommended(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"a": print}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"not a CLVP \(corrupt, or it contains code, which is not executed\)"):
        load_clvp(tmp_path)


def test_a_folder_with_incomplete_damaged_or_missing_weights(model, tmp_path):
    model.save_pretrained(tmp_path)
    file, config_file = tmp_path / "model.safetensors", tmp_path / "config.json"
    config = json.loads(config_file.read_text())
    config["text_config"]["vocab_size"] += 1
    config_file.write_text(json.dumps(config))
    assert_refused(tmp_path, "not a CLVP")
    config["text_config"]["vocab_size"] -= 1
    config_file.write_text(json.dumps(config))
    weights = load_file(file)
    del weights["text_projection.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    assert_refused(tmp_path, "weights are missing", "text_projection.weight")
    file.write_bytes(file.read_bytes()[:200])
    assert_refused(tmp_path, "not a CLVP")
    file.unlink()
    assert_refused(tmp_path, "not a CLVP")


@pytest.mark.parametrize("name", ["a.ckpt", "clvp2.pth"])
def test_no_flipped_bit_of_a_file_of_torch_is_read(make_model, batch, tmp_path, name):
    model, random = make_model(hidden_size=128, intermediate_size=256), Random(0)
    write_ckpt(model, tmp_path / name) if name == "a.ckpt" else model.save_tortoise(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for _ in range(15):
        damaged = bytearray(content)
        damaged[random.randrange(len(content))] ^= 1 << random.randrange(8)
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(UserError, match=f"{name}: not a CLVP"):
            load_clvp(tmp_path / name)


@pytest.mark.parametrize(
    "changes", [{"num_hidden_layers": 10**7}, {"_attn_implementation": "unknown/kernel"}, {"hidden_size": "wide"}]
)
def test_a_config_that_asks_for_code_or_for_too_much(model, tmp_path, changes):
    config = write_folder(model, tmp_path) / "config.json"
    values = json.loads(config.read_text())
    values["text_config"] |= changes
    config.write_text(json.dumps(values | {key: value for key, value in changes.items() if key.startswith("_")}))
    with pytest.raises(UserError, match="not a CLVP"):
        load_clvp(tmp_path)
