import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from clvp_train.models import (
    CLVPModel,
    CLVPSpeechModel,
    CLVPSpeechModelWithProjection,
    CLVPTextModel,
    CLVPTextModelWithProjection,
)

TOWERS = {
    CLVPTextModel: ("input_ids", "pooler_output"),
    CLVPTextModelWithProjection: ("input_ids", "text_embeds"),
    CLVPSpeechModel: ("speech_ids", "pooler_output"),
    CLVPSpeechModelWithProjection: ("speech_ids", "speech_embeds"),
}


def expected_of(model, batch, ids, field):
    if field.endswith("embeds"):
        return model.get_text_features(batch[ids]) if ids == "input_ids" else model.get_speech_features(batch[ids])
    return (model.text_model if ids == "input_ids" else model.speech_model)(batch[ids]).pooler_output


def same_weights(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_complete_model_makes_a_round_trip_through_safetensors(model, tmp_path):
    with torch.no_grad():
        model.logit_scale.fill_(3.25)
    model.config.padding = "tortoise"
    model.save_pretrained(tmp_path)
    code = {"configuration_clvp.py", "modeling_clvp.py"}
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"} | code
    loaded, info = CLVPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert same_weights(loaded, model)
    assert loaded.config.padding == loaded.text_model.config.padding == "tortoise"
    assert type(AutoModel.from_pretrained(tmp_path)) is CLVPModel
    assert CLVPModel.from_pretrained(tmp_path, padding="mask").speech_model.config.padding == "mask"


@pytest.mark.parametrize("cls", TOWERS)
def test_towers_load_from_complete_and_from_their_own_folders(model, batch, tmp_path, cls):
    ids, field = TOWERS[cls]
    model.save_pretrained(tmp_path / "complete")
    tower, info = cls.from_pretrained(tmp_path / "complete", output_loading_info=True)
    tower.save_pretrained(tmp_path / "tower")
    again, own_info = cls.from_pretrained(tmp_path / "tower", output_loading_info=True)
    assert not any(infos[kind] for infos in (info, own_info) for kind in ("missing_keys", "unexpected_keys"))
    assert same_weights(again, tower) and cls.main_input_name == ids
    for loaded in (tower, again):
        assert torch.equal(loaded(batch[ids])[field], expected_of(model, batch, ids, field))
        assert torch.equal(loaded(batch[ids], return_dict=False)[0], loaded(batch[ids])[0])
    if not cls.__name__.endswith("Projection"):
        assert type(AutoModel.from_pretrained(tmp_path / "tower")) is cls


def test_a_complete_reports_what_does_not_belong(model, tmp_path):
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["speech_model.stranger"] = torch.zeros(1)
    del weights["text_model.layers.0.mlp.fc2.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _, info = CLVPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["unexpected_keys"]) == {"speech_model.stranger"}
    assert set(info["missing_keys"]) == {"text_model.layers.0.mlp.fc2.bias"}


def test_attention_by_name_reaches_both_towers(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = CLVPModel.from_pretrained(tmp_path, attn_implementation="eager")
    assert {tower.config._attn_implementation for tower in (loaded.text_model, loaded.speech_model)} == {"eager"}
    assert model.text_model.config._attn_implementation == "sdpa"


def test_the_two_files_work_as_remote_code(model, batch, tmp_path, monkeypatch):
    """From a folder that holds the two files and no package, as on the Hub."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "repo"
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "clvp_train_elsewhere"
    (folder / "config.json").write_text(json.dumps(config))
    remote = AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert type(remote) is not CLVPModel and type(remote).__module__.startswith("transformers_modules")
    assert torch.equal(remote(**batch).logits_per_text, model(**batch).logits_per_text)
    assert "convert_tortoise" not in {path.stem for path in Path(tmp_path).rglob("*.py")}
