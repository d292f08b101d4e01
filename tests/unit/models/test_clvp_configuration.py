import pytest
import torch
from transformers import AutoConfig

from clvp_train.models import (
    CLVPConfig,
    CLVPModel,
    CLVPSpeechConfig,
    CLVPSpeechModelWithProjection,
    CLVPTextConfig,
    CLVPTextModelWithProjection,
)


def test_defaults_are_those_of_clvp2():
    config = CLVPConfig()
    for tower, vocabulary in ((config.text_config, 256), (config.speech_config, 8192)):
        assert tower.vocab_size == vocabulary
        assert (tower.hidden_size, tower.intermediate_size, tower.projection_dim) == (768, 1536, 768)
        assert (tower.num_hidden_layers, tower.num_attention_heads, tower.head_dim, tower.rotary_dim) == (
            20,
            12,
            64,
            32,
        )
        assert (tower.rms_norm, tower.summary_type, tower.use_attention_bias) == ("tortoise", "mean", False)
    assert (config.projection_dim, config.padding) == (768, "mask")


@pytest.mark.parametrize(
    ("width", "heads", "head_dim", "rotary_dim"),
    [(192, 6, 32, 32), (64, 4, 16, 16), (256, 4, 64, 32), (512, 4, 128, 64)],
)
def test_rotary_width_follows_the_head_and_never_exceeds_it(width, heads, head_dim, rotary_dim):
    config = CLVPTextConfig(hidden_size=width, num_attention_heads=heads)
    assert (config.head_dim, config.rotary_dim) == (head_dim, rotary_dim)


def test_round_trip_through_a_folder(tmp_path, make_config):
    config = make_config(summary_type="last", rms_norm="transformers")
    config.padding = "tortoise"
    config.save_pretrained(tmp_path)
    assert CLVPConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert type(AutoConfig.from_pretrained(tmp_path)) is CLVPConfig


@pytest.mark.parametrize(("cls", "name"), [(CLVPTextConfig, "text_config"), (CLVPSpeechConfig, "speech_config")])
def test_a_tower_is_read_from_a_complete_config(tmp_path, cls, name, make_config):
    config = make_config(summary_type="first")
    config.padding = "tortoise"
    config.save_pretrained(tmp_path)
    tower, expected = cls.from_pretrained(tmp_path), getattr(config, name)
    assert type(tower) is cls and tower.to_dict() == expected.to_dict()
    assert (tower.padding, tower.hidden_size) == ("tortoise", expected.hidden_size)
    tower.save_pretrained(tmp_path / "tower")
    assert cls.from_pretrained(tmp_path / "tower").to_dict() == tower.to_dict()
    assert type(AutoConfig.from_pretrained(tmp_path / "tower")) is cls


def test_from_text_speech_configs_copies_the_towers():
    text, speech = CLVPTextConfig(projection_dim=32), CLVPSpeechConfig(projection_dim=32)
    config = CLVPConfig.from_text_speech_configs(text, speech, padding="tortoise", logit_scale_init_value=1.0)
    assert (config.projection_dim, config.logit_scale_init_value) == (32, 1.0)
    assert config.text_config.padding == config.speech_config.padding == "tortoise"
    assert text.padding == speech.padding == "mask"


def test_padding_set_later_reaches_the_towers():
    config = CLVPConfig()
    config.padding = "tortoise"
    assert config.text_config.padding == config.speech_config.padding == "tortoise"


def test_the_composite_and_each_tower_may_have_their_own_projection_dim(tmp_path):
    shape = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    text, speech = CLVPTextConfig(**shape, projection_dim=32), CLVPSpeechConfig(**shape, projection_dim=8)
    config = CLVPConfig.from_text_speech_configs(text, speech, projection_dim=64)
    assert [c.projection_dim for c in (config, config.text_config, config.speech_config)] == [64, 32, 8]
    ids = torch.tensor([[1, 2, 3]])
    model = CLVPModel(config).eval()
    output = model(ids, ids)
    assert output.text_embeds.shape == output.speech_embeds.shape == (1, 64)
    assert CLVPTextModelWithProjection(config.text_config)(ids).text_embeds.shape == (1, 32)
    assert CLVPSpeechModelWithProjection(config.speech_config)(ids).speech_embeds.shape == (1, 8)
    model.save_pretrained(tmp_path)
    loaded = CLVPModel.from_pretrained(tmp_path)
    assert (loaded.config.projection_dim, loaded.config.speech_config.projection_dim) == (64, 8)
    torch.testing.assert_close(loaded(ids, ids).logits_per_text, output.logits_per_text)
    tower = CLVPTextModelWithProjection.from_pretrained(tmp_path)
    torch.testing.assert_close(tower(ids).text_embeds, model.get_text_features(ids))  # the stored weights: 64 wide


def test_projection_dim_of_the_composite_is_the_default_of_its_towers():
    config = CLVPConfig(projection_dim=32, speech_config={"hidden_size": 192, "num_attention_heads": 6})
    assert config.text_config.projection_dim == config.speech_config.projection_dim == 32


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: CLVPTextConfig(hidden_size=100, num_attention_heads=3), "hidden_size.*num_attention_heads.*head_dim"),
        (lambda: CLVPTextConfig(hidden_size=9, num_attention_heads=3), "rotary_dim"),
        (lambda: CLVPTextConfig(rotary_dim=128), "rotary_dim.*head_dim"),
        (lambda: CLVPTextConfig(summary_type="cls_index"), "summary_type.*'mean' or 'first' or 'last'"),
        (lambda: CLVPTextConfig(rms_norm="llama"), "rms_norm.*'tortoise' or 'transformers'"),
        (lambda: CLVPTextConfig(padding="none"), "padding.*'mask' or 'tortoise'"),
        (lambda: CLVPTextConfig(dropout=1.0), "dropout"),
        (lambda: CLVPTextConfig(num_hidden_layers=0), "num_hidden_layers"),
        (lambda: CLVPConfig(padding="none"), "padding.*'mask' or 'tortoise'"),
        (lambda: setattr(CLVPConfig(), "padding", "none"), "padding"),
        (lambda: CLVPConfig(projection_dim=0), "projection_dim"),
        (lambda: CLVPConfig(text_config={"projection_dim": 8}), "projection_dim.*differ.*CLVPConfig.projection_dim"),
        (lambda: CLVPConfig(text_config={"padding": "tortoise"}), "padding.*differ.*CLVPConfig.padding"),
    ],
)
def test_errors_name_the_field(build, field):
    with pytest.raises(ValueError, match=field):
        build()
