import pytest
import torch
from torch import nn

from clvp_train.models import CLVPSpeechModel


def test_gradients_reach_every_parameter(model, batch):
    model.train()(**batch, return_loss=True).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_recomputes_and_gives_the_same_gradients(make_model, batch, reentrant):
    model = make_model(attention_dropout=0.1, dropout=0.1).train()
    calls = []
    for tower in (model.text_model, model.speech_model):
        for layer in tower.layers:
            layer.self_attn.q_proj.register_forward_hook(lambda *_: calls.append(1))

    def step():
        calls.clear()
        model.zero_grad()
        torch.manual_seed(0)
        model(**batch, return_loss=True).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}, len(calls)

    expected, plain_calls = step()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    assert model.is_activation_checkpointing
    actual, checkpointed_calls = step()
    model.activation_checkpointing_disable()
    _, disabled_calls = step()
    assert (plain_calls, checkpointed_calls, disabled_calls) == (4, 8, 4)
    for name, gradient in expected.items():
        assert torch.allclose(actual[name], gradient, atol=1e-6), name


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_prepared_weights_give_the_same_embeddings_and_gradients(make_model, batch, bias, dtype):
    model = make_model(use_attention_bias=bias, dropout=0.0, attention_dropout=0.0).train()

    def run(prepare):
        model.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            weights = model.text_model.layer_weights() if prepare else None
            embeds = model.get_text_features(batch["input_ids"], layer_weights=weights)
        embeds.float().square().sum().backward()
        return embeds.float(), *(weight.grad.clone() for weight in model.text_model.layers[0].parameters())

    for prepared, own in zip(run(True), run(False), strict=True):
        assert (prepared - own).norm() <= (1e-5 if dtype is None else 3e-2) * own.norm()
    model.text_model.layers[1].self_attn.q_proj = type("Adapter", (nn.Linear,), {})(128, 128)
    assert [weights is None for weights in model.text_model.layer_weights()] == [False, True]


def test_dropout_acts_in_training_only(make_model, batch):
    for fields in ({"attention_dropout": 0.5, "dropout": 0.0}, {"attention_dropout": 0.0, "dropout": 0.5}):
        model = make_model(**fields)
        assert torch.equal(model(**batch).text_embeds, model(**batch).text_embeds)
        model.train()
        assert not torch.equal(model(**batch).text_embeds, model(**batch).text_embeds)


def test_initial_standard_deviations(make_model):
    model = make_model(initializer_range=0.2, initializer_factor=0.5)
    layer = model.speech_model.layers[0]
    for weight, std in (
        (model.speech_model.token_embedding.weight, 0.1),
        (layer.self_attn.q_proj.weight, 0.1),
        (layer.self_attn.out_proj.weight, 0.05),
        (layer.mlp.fc2.weight, 0.05),
        (model.speech_projection.weight, 0.5 * 128**-0.5),
    ):
        assert weight.std().item() == pytest.approx(std, rel=0.1)
    assert model.logit_scale.item() == pytest.approx(2.6592)


def test_embeddings_can_be_resized_and_replaced(model):
    assert model.get_input_embeddings() is model.text_model.token_embedding
    model.resize_token_embeddings(70)
    assert model.config.text_config.vocab_size == 70
    assert model.text_model.token_embedding.weight.shape == (70, 32)
    assert model.speech_model.token_embedding.weight.shape == (96, 128), "the method acts on the text tokens"
    speech, replacement = model.speech_model, nn.Embedding(10, 128)
    kept = speech.token_embedding.weight.detach().clone()
    speech.resize_token_embeddings(120)
    assert speech.config.vocab_size == model.config.speech_config.vocab_size == 120
    assert torch.equal(speech.token_embedding.weight[: len(kept)], kept)
    assert speech(torch.tensor([[119]])).pooler_output.isfinite().all()
    speech.set_input_embeddings(replacement)
    assert speech.get_input_embeddings() is speech.token_embedding is replacement


def test_unknown_attention_is_refused(make_config):
    config = make_config().speech_config
    config._attn_implementation = "telepathy"
    with pytest.raises((ValueError, KeyError), match="telepathy"):
        CLVPSpeechModel(config)
