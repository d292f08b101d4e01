import sys

import pytest
import torch
from transformers import ClvpConfig, ClvpModelForConditionalGeneration

from clvp_train.errors import UserError
from clvp_train.models import CLVPModel, modeling_clvp
from clvp_train.models.convert_tortoise import tortoise_state_dict
from clvp_train.models.convert_transformers import transformers_state_dict


@pytest.fixture
def servable(make_model):
    """A CLVP that tortoise-tts could build: heads of 64, a gate of twice the width."""
    model = make_model(hidden_size=128, intermediate_size=256, head_dim=64, num_attention_heads=2)
    model.config.padding = "tortoise"
    with torch.no_grad():
        model.logit_scale.fill_(3.5)
    return model


@pytest.fixture(scope="module")
def composite(tmp_path_factory):
    """A small transformers Clvp, its autoregressive model included, saved in both formats."""
    torch.manual_seed(0)
    tower = {"hidden_size": 96, "intermediate_size": 64, "projection_dim": 24, "num_hidden_layers": 2}
    tower |= {"num_attention_heads": 2, "vocab_size": 64, "bos_token_id": 1}
    decoder = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_mel_attn_blocks": 1}
    decoder |= {"max_position_embeddings": 16, "max_text_tokens": 16, "vocab_size": 80}
    decoder |= {"bos_token_id": 70, "eos_token_id": 71, "feature_size": 16}
    config = ClvpConfig(
        text_config=tower, speech_config=tower | {"use_attention_bias": True}, decoder_config=decoder, projection_dim=24
    )
    model = ClvpModelForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.logit_scale.fill_(1.75)
        for parameter in (*model.text_encoder_model.parameters(), *model.speech_encoder_model.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("composite")
    model.save_pretrained(folder / "safetensors")
    model.save_pretrained(folder / "sharded", max_shard_size="100KB")
    config.save_pretrained(folder / "bin")
    torch.save(model.state_dict(), folder / "bin" / "pytorch_model.bin")
    return folder, model


def test_tortoise_round_trip(servable, batch, tmp_path):
    path = tmp_path / "clvp2.pth"
    servable.save_tortoise(path)
    loaded = CLVPModel.from_tortoise(path)
    assert not loaded.training
    assert loaded.config.padding == loaded.text_model.config.padding == "tortoise"
    fields = {"vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers"}
    for field in fields | {"num_attention_heads", "head_dim", "rotary_dim", "rms_norm"}:
        for name in ("text_config", "speech_config"):
            assert getattr(getattr(servable.config, name), field) == getattr(getattr(loaded.config, name), field)
    ours, theirs = servable.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert torch.equal(loaded(**batch).logits_per_text, servable(**batch).logits_per_text)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


ROTARY = "text_transformer.transformer.attn_layers.rotary_pos_emb.inv_freq"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("temperature"), r"clvp2.pth.*Missing: \['temperature'\]"),
        (lambda state: state.pop(ROTARY), r"clvp2.pth.*Missing: \['text_transformer.*inv_freq'\]"),
        (lambda state: state.update(extra=torch.zeros(1)), r"clvp2.pth.*Unexpected: \['extra'\]"),
        (lambda state: state.update({ROTARY: torch.ones(16)}), r"clvp2.pth.*inv_freq does not hold"),
        (lambda state: state.update({"to_text_latent.weight": torch.ones(24, 7)}), r"clvp2.pth.*size mismatch"),
        (lambda state: state.clear(), "clvp2.pth.*Missing"),
        (lambda state: state.update(temperature="hot"), "clvp2.pth: not a state dict"),
    ],
)
def test_tortoise_key_errors_name_file_and_keys(servable, tmp_path, change, message):
    state = tortoise_state_dict(servable)
    change(state)
    torch.save(state, tmp_path / "clvp2.pth")
    with pytest.raises(ValueError, match=message.replace(".*", "(?s:.*)")):
        CLVPModel.from_tortoise(tmp_path / "clvp2.pth")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head_dim": 32}, "text_config.head_dim is 32 and must be 64"),
        ({"rms_norm": "transformers"}, "speech_config.rms_norm"),
        ({"summary_type": "last"}, "summary_type"),
        ({"intermediate_size": 128}, "text_config.intermediate_size is 128 and must be 256"),
        ({"use_attention_bias": True}, "use_attention_bias"),
    ],
)
def test_what_tortoise_does_not_support_is_refused(make_model, tmp_path, fields, message):
    base = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 64, "num_attention_heads": 2}
    with pytest.raises(ValueError, match=message):
        make_model(**base | fields).save_tortoise(tmp_path / "clvp2.pth")
    assert not (tmp_path / "clvp2.pth").exists()


def test_a_masked_model_is_exported_with_a_warning(servable, tmp_path, caplog):
    servable.save_tortoise(tmp_path / "quiet.pth")
    assert not caplog.records
    servable.config.padding = "mask"
    servable.save_tortoise(tmp_path / "clvp2.pth")
    assert "ignores masks" in caplog.text


@pytest.mark.parametrize("layout", ["safetensors", "sharded", "bin"])
def test_from_transformers_takes_the_encoders_and_the_scale(composite, layout):
    folder, theirs = composite
    model = CLVPModel.from_transformers(folder / layout)
    assert not model.training
    assert (model.config.padding, model.config.text_config.rms_norm) == ("mask", "transformers")
    assert model.logit_scale.item() == 1.75
    assert model.config.speech_config.use_attention_bias and not model.config.text_config.use_attention_bias
    ids = torch.randint(0, 64, (3, 11), generator=torch.Generator().manual_seed(0))
    for ours, reference in (
        (model.get_text_features, theirs.text_encoder_model),
        (model.get_speech_features, theirs.speech_encoder_model),
    ):
        assert torch.allclose(ours(ids), reference(ids).embeds, atol=1e-5)


def test_transformers_names_round_trip(composite):
    folder, theirs = composite
    _, state = transformers_state_dict(CLVPModel.from_transformers(folder / "safetensors"))
    expected = {
        key: value
        for key, value in theirs.state_dict().items()
        if not key.startswith(("conditioning_encoder.", "speech_decoder_model."))
    }
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in state)


@pytest.fixture
def fitting(make_model):
    """Builds a CLVP for the vocabularies and the rule for rotary widths of `composite`, with the norm that is named."""

    def build(rms_norm="tortoise", **fields):
        tower = {"hidden_size": 64, "num_attention_heads": 1, "rms_norm": rms_norm}
        model = make_model(**tower | fields)
        model.speech_model.resize_token_embeddings(64)
        model.config.speech_config.vocab_size = 64
        return model

    return build


@pytest.mark.parametrize(("norm", "most"), [("tortoise", 1e-5), ("transformers", 1e-6)])
def test_transformers_loads_and_scores_the_same(composite, fitting, batch, tmp_path, norm, most):
    base, theirs = composite
    (base / "safetensors" / "tokenizer_config.json").write_text("{}")
    ours = fitting(norm)
    ours.save_transformers(tmp_path / "out", base / "safetensors")
    served, info = ClvpModelForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    batch["speech_ids"] = batch["speech_ids"] % 64
    text = served.text_encoder_model(batch["input_ids"]).embeds
    speech = served.speech_encoder_model(batch["speech_ids"]).embeds
    scores = torch.nn.functional.cosine_similarity(text[:, None], speech[None], dim=-1) * served.logit_scale.exp()
    expected = ours(**batch).logits_per_text
    assert expected.std() > 0.1 and (scores - expected).abs().max() < most * ours.logit_scale.exp()
    decoder = theirs.speech_decoder_model.state_dict()
    assert all(torch.equal(value, decoder[key]) for key, value in served.speech_decoder_model.state_dict().items())
    assert (tmp_path / "out" / "tokenizer_config.json").read_text() == "{}"
    again = CLVPModel.from_transformers(tmp_path / "out")
    assert (again(**batch).logits_per_text - expected).abs().max() < most * ours.logit_scale.exp()


def test_what_transformers_does_not_support_is_refused(composite, make_model, fitting, tmp_path):
    base, theirs = composite[0] / "safetensors", composite[1]
    fitting().save_pretrained(tmp_path / "scorer")
    theirs.config.save_pretrained(tmp_path / "encoders")
    encoders = {key: value for key, value in theirs.state_dict().items() if "encoder_model" in key}
    torch.save(encoders, tmp_path / "encoders" / "pytorch_model.bin")
    out = tmp_path / "out"
    for model, folder, source, message in (
        (fitting(head_dim=32), out, base, "text_config.head_dim is 32 and must be 64"),
        (fitting(rotary_dim=16), out, base, "text_config.rotary_dim is 16 and must be 32"),
        (make_model(hidden_size=64, num_attention_heads=1), out, base, "64 speech tokens and this CLVP 96"),
        (fitting(), base, base, "is the base itself"),
        (fitting(), out, tmp_path / "scorer", "model_type 'clvp_train'"),
        (fitting(), out, tmp_path / "encoders", "no autoregressive model"),
    ):
        with pytest.raises(ValueError, match=message):
            model.save_transformers(folder, source)
    assert not out.exists()


def test_transformers_errors_name_source_and_keys(servable, composite, tmp_path):
    servable.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="'clvp_train'.*'clvp'"):
        CLVPModel.from_transformers(tmp_path / "other")
    theirs = composite[1]
    theirs.config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no weights"):
        CLVPModel.from_transformers(tmp_path)
    state = theirs.state_dict() | {"extra": torch.zeros(1)}
    del state["text_encoder_model.projection.weight"]
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"(?s)Missing: \['text_encoder_model.projection.weight'\].*\['extra'\]"):
        CLVPModel.from_transformers(tmp_path)


def test_without_the_package_the_error_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "clvp_train.models.convert_tortoise", None)
    with pytest.raises(ImportError, match="clvp_train package"):
        modeling_clvp.CLVPModel.from_tortoise("clvp2.pth")
