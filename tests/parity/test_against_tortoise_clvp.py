"""The full-size CLVP of tortoise-tts 3.0.0, `CLVP(use_xformers=True)` as its `api.py` builds it, against ours."""

import sys
import types

import pytest
import torch

from clvp_train.models import CLVPModel

pytestmark = pytest.mark.tortoise
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def build(tortoise_source):
    # tortoise/models/clvp.py also imports an older transformer, which needs a package that is not used here
    stub = types.ModuleType("rotary_embedding_torch")
    stub.RotaryEmbedding = stub.broadcat = None
    sys.modules.setdefault(stub.__name__, stub)
    from tortoise.models.clvp import CLVP

    widths = {"dim_text": 768, "dim_speech": 768, "dim_latent": 768, "num_text_tokens": 256, "num_speech_tokens": 8192}
    sizes = {"text_enc_depth": 20, "speech_enc_depth": 20, "text_heads": 12, "speech_heads": 12}
    return lambda: CLVP(**widths, **sizes, text_seq_len=350, speech_seq_len=430, use_xformers=True).eval()


@pytest.fixture(scope="module")
def reference(build, order_one):
    model = build()
    order_one(model)
    with torch.no_grad():
        model.temperature.fill_(1.25)
    return model


@pytest.fixture(scope="module")
def ours(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("tortoise") / "clvp2.pth"
    torch.save(reference.state_dict(), path)
    model = CLVPModel.from_tortoise(path)
    path.unlink()
    return model


@pytest.fixture(scope="module")
def pairs():
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 37), generator=draw), torch.randint(0, 8192, (3, 71), generator=draw)


def difference(one, other):
    return (one - other).abs().max().item()


@torch.no_grad()
def test_scores_and_loss(reference, ours, pairs):
    output = ours(*pairs, return_loss=True)
    scores = reference(*pairs, return_loss=False)
    assert scores.std() > 1e-2, "equal scores would mask errors"
    assert difference(output.logits_per_text.diagonal(), scores) <= TOLERANCE
    assert abs(output.loss.item() - reference(*pairs, return_loss=True).item()) <= TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("tower", ["text", "speech"])
def test_hidden_states(reference, ours, pairs, tower):
    ids = pairs[0] if tower == "text" else pairs[1]
    embedding, encoder = getattr(reference, f"{tower}_emb"), getattr(reference, f"{tower}_transformer")
    expected = encoder(embedding(ids), mask=torch.ones_like(ids).bool())
    assert difference(getattr(ours, f"{tower}_model")(ids).last_hidden_state, expected) <= TOLERANCE


@torch.no_grad()
def test_tortoise_loads_and_scores_the_same(build, ours, pairs, tmp_path):
    path = tmp_path / "clvp2.pth"
    ours.save_tortoise(path)
    served = build()
    served.load_state_dict(torch.load(path, weights_only=True), strict=True)
    path.unlink()
    assert difference(ours(*pairs).logits_per_text.diagonal(), served(*pairs)) <= TOLERANCE
