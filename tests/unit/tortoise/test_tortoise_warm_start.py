import pytest
import torch

from clvp_train.models import CLVPConfig, CLVPModel
from clvp_train.tortoise.warm_start import warm_start


def towers_of(tortoise, width):
    """A model, and the embeddings of its towers before the warm start."""
    tower = {"hidden_size": width, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"text_config": tortoise.num_text_tokens, "speech_config": tortoise.num_speech_tokens}
    model = CLVPModel(CLVPConfig(**{name: tower | {"vocab_size": size} for name, size in sizes.items()}))
    return model, [
        encoder.token_embedding.weight.detach().clone() for encoder in (model.text_model, model.speech_model)
    ]


@pytest.mark.parametrize(("width", "least"), [(8, 0.5), (512, 0.9999)])
def test_distances_are_those_of_the_tortoise(nano, width, least):
    model, before = towers_of(nano, width)
    warm_start(model, nano)
    sources = nano.autoregressive.text_embedding.weight, nano.dvae.codebook.embed.T
    for encoder, old_VD, source_VC in zip((model.text_model, model.speech_model), before, sources):
        new_VD = encoder.token_embedding.weight.detach()
        columns = min(width, source_VC.shape[1])
        both = torch.stack([torch.cdist(each, each).flatten() for each in (new_VD[:, :columns], source_VC)])
        assert torch.corrcoef(both)[0, 1] > least
        torch.testing.assert_close(new_VD[:, :columns].std(), old_VD.std(), rtol=1e-3, atol=0)
        assert torch.equal(new_VD[:, columns:], old_VD[:, columns:])


def test_tokens_of_a_custom_tokenizer_and_a_missing_dvae(nano, monkeypatch):
    monkeypatch.setattr(nano, "custom_tokenizer", "folder")
    monkeypatch.setattr(nano, "dvae", None)
    model, (texts, codes) = towers_of(nano, 16)
    warm_start(model, nano)
    assert torch.equal(model.text_model.token_embedding.weight, texts)
    assert not torch.equal(model.speech_model.token_embedding.weight, codes)
