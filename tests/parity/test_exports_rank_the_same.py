"""Models exported to tortoise-tts and to transformers rank candidates there as here."""

import numpy as np
import pytest
import torch
from transformers import ClvpModelForConditionalGeneration, GenerationConfig

from clvp_train import CLVPConfig, CLVPModel, Reranker
from clvp_train.tortoise import Candidate, FrozenTortoise
from tests.e2e.commands import ROOT

SETS, CANDIDATES, MAX_CODES, STOP = 100, 8, 120, 8193
TOLERANCE = 1e-4
NANO = ROOT / "data/nano/tortoise"


def build(order_one, codes, padding, scale=1.0):
    tower = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = CLVPConfig(
        text_config=tower, speech_config=tower | {"vocab_size": codes}, projection_dim=128, padding=padding
    )
    model = CLVPModel(config).eval()
    order_one(model)
    with torch.no_grad():
        model.logit_scale.fill_(scale)
    return model


def candidate_sets(codes):
    """Texts as token ids, and candidates, some of them cut off at the limit."""
    draw = np.random.default_rng(0)
    texts = [draw.integers(2, 255, draw.integers(5, 40)).tolist() for _ in range(SETS)]
    sets = []
    for _ in texts:
        lengths = draw.integers(10, MAX_CODES + 1, CANDIDATES)
        sets.append([Candidate(tuple(draw.integers(0, codes, n).tolist()), bool(n < MAX_CODES), 0.0) for n in lengths])
    return texts, sets


def same_order(rankings, scores, factor):
    """The order is equal, and the scores differ by less than the tolerance."""
    spread, worst = [], 0.0
    for ranking, theirs in zip(rankings, scores):
        ours = np.array(ranking.scores) * factor
        worst = max(worst, np.abs(ours - theirs).max())
        assert list(ranking.order) == sorted(range(len(theirs)), key=lambda index: -theirs[index])
        spread.append(ours.max() - ours.min())
    assert np.median(spread) > 0.1, "equal scores would mask errors"
    print(f"largest difference of a score: {worst:.1e}")
    assert worst <= TOLERANCE


@pytest.mark.tortoise
def test_against_tortoise_ranking(tortoise_score, order_one, tmp_path):
    """tortoise-tts' own class, in its own environment, strict, without masks."""
    model = build(order_one, 8192, "tortoise")
    model.save_tortoise(tmp_path / "clvp2.pth")
    texts, sets = candidate_sets(8192)
    widths = {"dim_text": 128, "dim_speech": 128, "dim_latent": 128, "num_text_tokens": 256, "num_speech_tokens": 8192}
    depths = {"text_enc_depth": 3, "speech_enc_depth": 3, "text_heads": 2, "speech_heads": 2}
    stopped = [[[*one.codes, *([STOP] if one.finished else [])] for one in candidates] for candidates in sets]
    shape = widths | depths | {"text_seq_len": 350, "speech_seq_len": 430}
    scores = tortoise_score(tmp_path / "clvp2.pth", texts, stopped, shape=shape, max_codes=MAX_CODES)
    rankings = Reranker(model, max_codes=MAX_CODES).rank(texts, sets)
    same_order(rankings, scores, np.exp(1.0))


@pytest.fixture(scope="module")
def in_transformers(order_one, tmp_path_factory):
    """A CLVP of ours with tortoise-tts' norm, and the bundled Tortoise with it inside, opened by transformers."""
    model = build(order_one, 2048, "mask")
    folder = tmp_path_factory.mktemp("exported")
    model.save_transformers(folder, NANO)
    served, info = ClvpModelForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model, served.eval()


@torch.no_grad()
def test_against_transformers_ranking(in_transformers):
    model, served = in_transformers
    texts, sets = candidate_sets(2048)
    scores = []
    for text, candidates in zip(texts, sets):
        embeds = served.text_encoder_model(torch.tensor([text])).embeds
        speech = torch.cat([served.speech_encoder_model(torch.tensor([one.codes])).embeds for one in candidates])
        scores.append((torch.cosine_similarity(embeds, speech) * served.logit_scale.exp()).tolist())
    same_order(Reranker(model).rank(texts, sets), scores, np.exp(1.0))


@torch.no_grad()
def test_against_transformers_generate(in_transformers):
    """What `generate` itself returns as scores of the candidates that it has drawn."""
    model, served = in_transformers
    tortoise = FrozenTortoise.from_pretrained(NANO)
    input_ids = torch.tensor([tortoise.tokenize("And the light was good.")])
    features = torch.randn(1, 80, 60, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    drawn = served.generate(
        input_ids=input_ids,
        input_features=features,
        generation_config=GenerationConfig(
            do_sample=True,
            num_return_sequences=4,
            max_new_tokens=40,
            eos_token_id=2049,
            pad_token_id=2049,
            bos_token_id=2048,
        ),
        return_dict_in_generate=True,
    )
    served_text = torch.nn.functional.pad(input_ids, (0, 1))  # it appends a 0 to the text
    expected = model(served_text, drawn.speech_ids).logits_per_text
    assert drawn.speech_ids.shape[0] == 4 and expected.std() > 1e-3
    assert (drawn.logits_per_text - expected).abs().max() <= TOLERANCE
