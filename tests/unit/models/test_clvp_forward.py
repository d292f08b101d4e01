import pytest
import torch
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutputWithPooling

from clvp_train.models import CLVPOutput


def test_names_and_shapes(model, batch):
    output = model(**batch)
    assert isinstance(output, CLVPOutput) and output.loss is None
    assert torch.equal(output.logits_per_text, output.logits_per_speech.t())
    assert output.text_embeds.shape == output.speech_embeds.shape == (3, 24)
    assert torch.allclose(output.text_embeds.norm(dim=-1), torch.ones(3))
    for tower, shape in ((output.text_model_output, (3, 7, 32)), (output.speech_model_output, (3, 13, 128))):
        assert isinstance(tower, BaseModelOutputWithPooling)
        assert tower.last_hidden_state.shape == shape
        assert tower.pooler_output.shape == (shape[0], shape[2])
        assert tower.hidden_states is None and tower.attentions is None


def test_logits_are_scaled_cosines(model, batch):
    with torch.no_grad():
        model.logit_scale.fill_(1.5)
    output = model(**batch)
    text = model.get_text_features(batch["input_ids"])
    speech = model.get_speech_features(batch["speech_ids"])
    expected = torch.tensor(1.5).exp() * F.cosine_similarity(text[:, None], speech[None], dim=-1)
    assert torch.allclose(output.logits_per_text, expected, atol=1e-5)
    assert text.shape == speech.shape == (3, 24)
    assert (text.norm(dim=-1) - 1).abs().min() > 0.1, "features must not be normalised"


def test_loss_against_naive_computation(model, batch):
    output = model(**batch, return_loss=True)
    logits = output.logits_per_text.double()
    naive = torch.zeros((), dtype=torch.double)
    for i in range(3):
        naive += logits[i].logsumexp(0) - logits[i, i] + logits[:, i].logsumexp(0) - logits[i, i]
    assert output.loss.item() == pytest.approx(naive.item() / 6, abs=1e-6)


def test_return_dict_false_gives_the_tuple(model, batch):
    output = model(**batch, return_loss=True)
    loss, per_speech, per_text, text, speech, text_tower, speech_tower = model(
        **batch, return_loss=True, return_dict=False
    )
    assert torch.equal(loss, output.loss) and torch.equal(per_speech, output.logits_per_speech)
    assert torch.equal(per_text, output.logits_per_text)
    assert torch.equal(text, output.text_embeds) and torch.equal(speech, output.speech_embeds)
    assert torch.equal(text_tower[1], output.text_model_output.pooler_output)
    assert torch.equal(speech_tower[0], output.speech_model_output.last_hidden_state)


def test_unequal_batches_have_scores_but_no_loss(model, batch):
    assert model(batch["input_ids"], batch["speech_ids"][:2]).logits_per_text.shape == (3, 2)
    with pytest.raises(ValueError, match="3 and 2"):
        model(batch["input_ids"], batch["speech_ids"][:2], return_loss=True)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_hidden_states_and_attentions(batch, attention, make_model):
    model = make_model(attention)
    output = model(**batch, output_attentions=True, output_hidden_states=True)
    for encoded, encoder, ids in (
        (output.text_model_output, model.text_model, batch["input_ids"]),
        (output.speech_model_output, model.speech_model, batch["speech_ids"]),
    ):
        assert len(encoded.hidden_states) == 3 and len(encoded.attentions) == 2
        assert torch.equal(encoded.hidden_states[0], encoder.token_embedding(ids))
        assert torch.equal(encoded.hidden_states[-1], encoded.last_hidden_state)
        assert encoded.attentions[0].shape == (3, 2, ids.shape[1], ids.shape[1])
        assert torch.allclose(encoded.attentions[1].sum(-1), torch.ones(3, 2, ids.shape[1]))
    plain = model(**batch)
    assert torch.allclose(output.text_embeds, plain.text_embeds, atol=1e-6)


@pytest.mark.parametrize("kind", ["mean", "first", "last"])
def test_summaries(batch, kind, make_model):
    tower = make_model(summary_type=kind).text_model(batch["input_ids"])
    states = tower.last_hidden_state
    expected = {"mean": states.mean(1), "first": states[:, 0], "last": states[:, -1]}[kind]
    assert torch.equal(tower.pooler_output, expected)


def test_rms_norms_differ_by_the_eps_under_the_root(make_model):
    x = 0.02 * torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    rms = x.pow(2).mean(-1, keepdim=True).sqrt()
    for kind, expected in (("tortoise", x / rms.clamp(min=1e-8)), ("transformers", x / (rms**2 + 1e-5).sqrt())):
        norm = make_model(rms_norm=kind).text_model.layers[0].input_rmsnorm
        assert torch.allclose(norm(x), expected, atol=1e-6)
        assert torch.equal(norm(torch.zeros(1, 32)), torch.zeros(1, 32))


def test_values_are_rotated_too(model):
    """With uniform attention only rotated values carry the order."""
    encoder = model.speech_model
    with torch.no_grad():
        for layer in encoder.layers:
            layer.self_attn.q_proj.weight.zero_()
    ids = torch.arange(1, 6)[None]
    assert (encoder(ids).pooler_output - encoder(ids.flip(1)).pooler_output).abs().max() > 1e-3


def test_without_rotation_order_has_no_effect(make_model):
    encoder = make_model(use_rotary_embedding=False).speech_model
    ids = torch.arange(1, 6)[None]
    assert torch.allclose(encoder(ids).pooler_output, encoder(ids.flip(1)).pooler_output, atol=1e-5)


def test_explicit_head_dim(batch, make_model):
    model = make_model(head_dim=64)
    assert model.text_model.layers[0].self_attn.q_proj.weight.shape == (128, 32)
    assert model(**batch).logits_per_text.isfinite().all()


@pytest.fixture
def attention_dtypes(monkeypatch):
    """dtypes of the queries of all attention calls."""
    dtypes, attend = [], F.scaled_dot_product_attention

    def spy(query, *args, **kwargs):
        dtypes.append(query.dtype)
        return attend(query, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return dtypes


def test_bfloat16_autocast_keeps_logits_and_cpu_attention_in_float32(model, batch, attention_dtypes):
    expected = model(**batch, return_loss=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch, return_loss=True)
        features = model.get_text_features(batch["input_ids"])
    assert set(attention_dtypes) == {torch.float32} and features.dtype == torch.bfloat16
    assert output.logits_per_text.dtype == output.loss.dtype == output.text_embeds.dtype == torch.float32
    assert (output.text_embeds - expected.text_embeds).abs().max() < 0.03
    assert (output.speech_embeds - expected.speech_embeds).abs().max() < 0.03
    output.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_other_dtypes(model, batch, attention_dtypes):
    assert model.double()(**batch, return_loss=True).loss.dtype == torch.float64
    assert set(attention_dtypes) == {torch.float64}
    attention_dtypes.clear()
    model.bfloat16()
    assert not list(model.buffers()), "a buffer, such as a rotary table, would be rounded with the weights"
    assert model(**batch).logits_per_text.isfinite().all() and set(attention_dtypes) == {torch.float32}


def test_compiles_without_graph_breaks(model, batch):
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    masks = {"text_attention_mask": torch.ones(3, 7), "speech_attention_mask": torch.ones(3, 13)}
    expected = model(**batch, **masks, return_loss=True)
    assert torch.allclose(compiled(**batch, **masks, return_loss=True).loss, expected.loss, atol=1e-5)
    assert torch.allclose(compiled(**batch).logits_per_text, expected.logits_per_text, atol=1e-4)
