import pytest
import torch
from transformers import ClvpModelForConditionalGeneration

from clvp_train.errors import UserError
from clvp_train.tortoise.autoregressive import AutoRegressive
from clvp_train.tortoise.transformers_checkpoint import CLVP_PREFIXES, from_composite, to_composite

ATTENTION = "speech_decoder_model.model.decoder.layers.1.attn."


@pytest.fixture
def composite(make_config):
    torch.manual_seed(0)
    return ClvpModelForConditionalGeneration(make_config()).state_dict()


@pytest.fixture
def expected(make_config):
    return AutoRegressive(make_config()).state_dict().keys()


def test_round_trip_without_the_clvp_encoders(composite, expected):
    again = to_composite(from_composite(composite, expected, "here"))
    ar = {key: tensor for key, tensor in composite.items() if not key.startswith(CLVP_PREFIXES)}
    assert again.keys() == ar.keys() < composite.keys()
    for key, tensor in ar.items():
        assert torch.equal(again[key], tensor), key
        assert again[key].is_contiguous(), key


def test_order_of_query_key_and_value(composite, expected):
    for value, part in enumerate("qkv"):
        composite[f"{ATTENTION}{part}_proj.weight"].fill_(value)
        composite[f"{ATTENTION}{part}_proj.bias"].fill_(value)
    state = from_composite(composite, expected, "here")
    order = torch.arange(3.0).repeat_interleave(64)
    assert torch.equal(state["blocks.1.attn.c_attn.bias"], order)
    assert torch.equal(state["blocks.1.attn.c_attn.weight"], order.expand(64, -1))


def test_errors_name_the_source_and_the_keys(composite, expected):
    del composite["conditioning_encoder.mel_conv.bias"]
    composite["speech_decoder_model.extra.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match="some/checkpoint.*mel_conv.bias.*speech_decoder_model.extra.weight"):
        from_composite(composite, expected, "some/checkpoint")


def test_stored_causal_masks_are_ignored(composite, expected):
    without = from_composite(composite, expected, "here")
    composite[f"{ATTENTION}bias"] = torch.ones(1, 1, 4, 4)
    assert from_composite(composite, expected, "here").keys() == without.keys()
