"""The full-size encoders of transformers' Clvp against ours, through a saved composite checkpoint."""

import pytest
import torch
from transformers import ClvpConfig, ClvpModelForConditionalGeneration

from clvp_train.models import CLVPModel

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def reference(order_one):
    # the autoregressive part, which is not compared, is small
    decoder = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_mel_attn_blocks": 1}
    model = ClvpModelForConditionalGeneration(ClvpConfig(speech_config={"vocab_size": 8192}, decoder_config=decoder))
    for encoder in (model.text_encoder_model, model.speech_encoder_model):
        # embeddings as small as initial ones, where the eps of the norm matters
        order_one(encoder, embedding_std=0.02)
    return model.eval()


@pytest.fixture(scope="module")
def ours(reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformers")
    reference.save_pretrained(folder)
    model = CLVPModel.from_transformers(folder)
    for path in folder.iterdir():
        path.unlink()
    return model


@torch.no_grad()
@pytest.mark.parametrize(("tower", "vocabulary", "length"), [("text", 256, 37), ("speech", 8192, 71)])
def test_encoders(reference, ours, tower, vocabulary, length):
    ids = torch.randint(0, vocabulary, (3, length), generator=torch.Generator().manual_seed(0))
    expected = getattr(reference, f"{tower}_encoder_model")(ids)
    model = getattr(ours, f"{tower}_model")
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (768, 20, 12)
    output = model(ids)
    embeds = getattr(ours, f"get_{tower}_features")(ids)
    for actual, expected_value in (
        (output.last_hidden_state, expected.last_hidden_state),
        (output.pooler_output, expected.pooler_output),
        (embeds, expected.embeds),
    ):
        assert expected_value.std() > 0.1, "small values would always agree"
        assert (actual - expected_value).abs().max().item() <= TOLERANCE
    norm = model.layers[0].input_rmsnorm
    norm.eps, kept = 1e-16, norm.eps
    assert (model(ids).last_hidden_state - expected.last_hidden_state).abs().max().item() > 10 * TOLERANCE
    norm.eps = kept


def test_scale(reference, ours):
    assert ours.logit_scale.item() == reference.logit_scale.item()
