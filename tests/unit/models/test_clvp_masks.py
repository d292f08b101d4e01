import pytest
import torch

from clvp_train.models import modeling_clvp

MASK = torch.tensor([[1] * 13, [1] * 4 + [0] * 9, [0] * 3 + [1] * 10])


def pad(ids, left, right, fill):
    """ids (B, L) with `left` and `right` columns of `fill`, and their mask."""
    padded = torch.nn.functional.pad(ids, (left, right), value=fill)
    mask = torch.nn.functional.pad(torch.ones_like(ids), (left, right))
    return padded, mask


def embed(model, tower, ids, mask=None):
    features = model.get_text_features if tower == "text" else model.get_speech_features
    return torch.nn.functional.normalize(features(ids, mask), dim=-1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["mean", "first", "last"])
@pytest.mark.parametrize(("left", "right"), [(0, 1), (0, 100), (3, 0), (5, 11)])
@pytest.mark.parametrize("tower", ["text", "speech"])
def test_padding_changes_nothing(batch, tower, left, right, kind, attention, make_model):
    model = make_model(attention, summary_type=kind)
    ids = batch["input_ids" if tower == "text" else "speech_ids"]
    expected = embed(model, tower, ids)
    for fill in (0, 5):
        assert (embed(model, tower, *pad(ids, left, right, fill)) - expected).abs().max() <= 1e-5
    unmasked, _ = pad(ids, left, right, 5)
    assert (embed(model, tower, unmasked) - expected).abs().max() > 1e-3, "the test must be able to fail"


@pytest.mark.parametrize("tower", ["text", "speech"])
def test_each_row_of_a_ragged_batch_equals_the_row_alone(model, batch, tower):
    ids = batch["input_ids" if tower == "text" else "speech_ids"]
    lengths = torch.tensor([2, 5, ids.shape[1]])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    together = embed(model, tower, ids, mask)
    for row, length in enumerate(lengths):
        assert (together[row] - embed(model, tower, ids[row : row + 1, :length])[0]).abs().max() <= 1e-5


def test_sdpa_and_eager_agree(batch, make_model):
    outputs = [make_model(name)(**batch, speech_attention_mask=MASK) for name in ("sdpa", "eager")]
    assert (outputs[0].speech_embeds - outputs[1].speech_embeds).abs().max() <= 1e-5


def test_flash_attention_leaves_float32_to_sdpa(batch, make_model):
    expected, model = (make_model("sdpa") for _ in range(2))
    model.config.speech_config._attn_implementation = "flash_attention_2"
    outputs = [each(**batch, speech_attention_mask=MASK).speech_embeds for each in (expected, model)]
    assert torch.equal(*outputs)


def test_attentions_asked_of_sdpa_honour_the_mask(model, batch):
    tower = model.speech_model(batch["speech_ids"], MASK, output_attentions=True)
    for attention in tower.attentions:
        assert attention.masked_select(MASK[:, None, None] == 0).abs().max() == 0
    expected = model.speech_model(batch["speech_ids"], MASK)
    assert (tower.pooler_output - expected.pooler_output).abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.float])
def test_any_dtype_of_mask(model, batch, dtype):
    ids, mask = pad(batch["input_ids"], 0, 4, 3)
    assert torch.equal(embed(model, "text", ids, mask.to(dtype)), embed(model, "text", ids, mask))


def test_attention_mask_is_the_mask_of_texts(model, batch):
    ids, mask = pad(batch["input_ids"], 0, 4, 3)
    logits = [
        model(ids, batch["speech_ids"], **{name: mask}).logits_per_text
        for name in ("attention_mask", "text_attention_mask")
    ]
    assert torch.equal(*logits)
    with pytest.raises(ValueError, match="set one of them"):
        model(ids, batch["speech_ids"], attention_mask=mask, text_attention_mask=mask)


def test_a_row_without_tokens_is_finite(model, batch):
    mask = torch.ones(3, 7)
    mask[1] = 0
    output = model(**batch, text_attention_mask=mask, return_loss=True)
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_tortoise_padding_ignores_masks(model, batch):
    masked = embed(model, "speech", batch["speech_ids"], MASK)
    model.config.padding = "tortoise"
    bare = embed(model, "speech", batch["speech_ids"])
    assert torch.equal(embed(model, "speech", batch["speech_ids"], MASK), bare)
    assert (masked - bare).abs().max() > 1e-3
    model.config.padding = "mask"
    assert torch.equal(embed(model, "speech", batch["speech_ids"], MASK), masked)


def test_no_mask_makes_no_mask(model, batch, monkeypatch):
    seen = []

    def spy(module, q, k, v, attention_mask, **kwargs):
        seen.append(attention_mask)
        return modeling_clvp.eager_attention(module, q, k, v, attention_mask, **kwargs)

    monkeypatch.setitem(modeling_clvp.ALL_ATTENTION_FUNCTIONS, "sdpa", spy)
    monkeypatch.setattr(modeling_clvp, "create_bidirectional_mask", lambda **kwargs: pytest.fail("a mask was made"))
    model(**batch)
    assert seen == [None] * 4


def test_a_mask_of_another_shape_is_refused(model, batch):
    with pytest.raises(ValueError, match=r"\(3, 6\).*\(3, 7\)"):
        model(**batch, text_attention_mask=torch.ones(3, 6))
