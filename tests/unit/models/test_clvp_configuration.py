import pytest
from transformers import AutoConfig

from clvp_train.models import CLVPConfig, CLVPSpeechConfig, CLVPTextConfig


def test_defaults_are_those_of_clvp2():
    config = CLVPConfig()
    for half, vocabulary in ((config.text_config, 256), (config.speech_config, 8192)):
        assert half.vocab_size == vocabulary
        assert (half.hidden_size, half.intermediate_size, half.projection_dim) == (768, 1536, 768)
        assert (half.num_hidden_layers, half.num_attention_heads, half.head_dim, half.rotary_dim) == (20, 12, 64, 32)
        assert (half.rms_norm, half.summary_type, half.use_attention_bias) == ("tortoise", "mean", False)
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
def test_a_half_is_read_out_of_a_whole(tmp_path, cls, name, make_config):
    config = make_config(summary_type="first")
    config.padding = "tortoise"
    config.save_pretrained(tmp_path)
    half = cls.from_pretrained(tmp_path)
    assert type(half) is cls
    expected = getattr(config, name)
    assert half.to_dict() == expected.to_dict()
    assert (half.padding, half.hidden_size) == ("tortoise", expected.hidden_size)


def test_a_half_alone_makes_a_round_trip(tmp_path):
    half = CLVPSpeechConfig(hidden_size=96, num_attention_heads=3)
    half.save_pretrained(tmp_path)
    assert CLVPSpeechConfig.from_pretrained(tmp_path).to_dict() == half.to_dict()
    assert type(AutoConfig.from_pretrained(tmp_path)) is CLVPSpeechConfig


def test_from_text_speech_configs_copies_the_halves():
    text, speech = CLVPTextConfig(projection_dim=32), CLVPSpeechConfig(projection_dim=32)
    config = CLVPConfig.from_text_speech_configs(text, speech, padding="tortoise", logit_scale_init_value=1.0)
    assert (config.projection_dim, config.logit_scale_init_value) == (32, 1.0)
    assert config.text_config.padding == config.speech_config.padding == "tortoise"
    assert text.padding == speech.padding == "mask"


def test_padding_set_later_reaches_the_halves():
    config = CLVPConfig()
    config.padding = "tortoise"
    assert config.text_config.padding == config.speech_config.padding == "tortoise"


def test_projection_dim_of_the_whole_goes_to_halves_that_say_none():
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
        (lambda: CLVPConfig(text_config={"projection_dim": 8}), "projection_dim.*differ.*same value"),
        (lambda: CLVPConfig(text_config={"padding": "tortoise"}), "padding.*differ.*CLVPConfig.padding"),
    ],
)
def test_bad_values_name_the_field_and_the_mend(build, field):
    with pytest.raises(ValueError, match=field):
        build()
