"""Batched, cached, compacted drawing against one row at a time with everything computed anew at every code."""

import pytest
import torch

from clvp_train.tortoise import Candidate, Sampling, candidates
from clvp_train.tortoise.candidates import draw
from clvp_train.tortoise.sampling import next_codes, uniforms

TEXT_LENGTHS = [1, 2, 67, 9, 20, 40, 60, 5, 3, 8, 30, 50]
SAMPLINGS = {
    "served": Sampling(max_codes=120),
    "unpenalised": Sampling(temperature=1.0, top_p=1.0, repetition_penalty=1.0, max_codes=200),
    "greedy": Sampling(temperature=0, max_codes=150),
}


@pytest.fixture(params=["served", "trained"])
def model(request, make_model):
    return make_model(request.param)


@pytest.fixture(scope="module")
def rows():
    random = torch.Generator().manual_seed(1)
    texts = [torch.randint(1, 255, (length,), generator=random).tolist() for length in TEXT_LENGTHS]
    return torch.randn(len(texts), 64, generator=random), texts


@torch.no_grad()
def naive(model, latent, text, seed, sampling) -> Candidate:
    prompt, _ = model.prompt(latent[None], [text])
    uniform = uniforms([seed], sampling.max_codes)[0]
    codes: list[int] = []
    while len(codes) < sampling.max_codes:
        spoken = model.speech_vectors(torch.tensor([codes], dtype=torch.long), first=1)
        x = torch.cat([prompt, spoken], dim=1)
        logits = model.logits(x, torch.ones(x.shape[1], x.shape[1]).tril() > 0)[:, -1]
        penalised = torch.zeros_like(logits, dtype=torch.bool)
        penalised[0, [*sampling.penalised_ids, model.start_speech, *codes]] = True
        code = int(next_codes(logits, penalised, uniform[len(codes)][None], sampling))
        if code == model.stop_speech:
            return Candidate(tuple(codes), True)
        codes.append(code)
    return Candidate(tuple(codes), False)


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_a_batch_gives_each_row_what_the_naive_loop_gives_it_alone(model, rows, sampling):
    latents, texts = rows
    seeds = [(17, row) for row in range(len(texts))]
    batch = draw(model, latents, texts, seeds, sampling)
    assert batch == [naive(model, *row, sampling) for row in zip(latents, texts, seeds)]
    lengths = [len(candidate.codes) for candidate in batch]
    # rows leave while others go on, and the cache grows
    assert min(lengths) + 30 < max(lengths) and max(lengths) > candidates.CACHE_STEP
    assert len(set(lengths)) > 4


@pytest.mark.parametrize("seed", range(4))
def test_candidates_do_not_depend_on_the_batch_its_order_or_its_size(make_model, rows, seed):
    latents, texts = rows
    model, sampling = make_model(), SAMPLINGS["unpenalised"]
    seeds = [(seed, row) for row in range(len(texts))]
    whole = draw(model, latents, texts, seeds, sampling)
    backwards = draw(model, latents.flip(0), texts[::-1], seeds[::-1], sampling)[::-1]
    parts = [
        candidate
        for part in (slice(0, 1), slice(1, 5), slice(5, 12))
        for candidate in draw(model, latents[part], texts[part], seeds[part], sampling)
    ]
    assert whole == backwards == parts


@pytest.mark.parametrize("compact_below", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("cache_step", [1, 7])
def test_neither_compaction_nor_cache_growth_changes_a_code(make_model, rows, monkeypatch, compact_below, cache_step):
    latents, texts = rows
    model, seeds = make_model(), [(3, row) for row in range(len(texts))]
    expected = draw(model, latents, texts, seeds, SAMPLINGS["unpenalised"])
    monkeypatch.setattr(candidates, "COMPACT_BELOW", compact_below)
    monkeypatch.setattr(candidates, "CACHE_STEP", cache_step)
    assert draw(model, latents, texts, seeds, SAMPLINGS["unpenalised"]) == expected


@pytest.mark.parametrize("compact_below", [0.0, 0.8])
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_the_loop_ends_with_the_longest_row_and_counts_each_code_once(
    make_model, rows, monkeypatch, sampling, compact_below
):
    monkeypatch.setattr(candidates, "COMPACT_BELOW", compact_below)
    latents, texts = rows
    counts: list[int] = []
    drawn = draw(make_model(), latents, texts, [(5, row) for row in range(len(texts))], sampling, counts.append)
    assert sum(counts) == sum(len(candidate.codes) for candidate in drawn)
    assert len(counts) == max(len(candidate.codes) + candidate.finished for candidate in drawn)
    assert counts == sorted(counts, reverse=True)


def test_a_cut_off_candidate_says_so_and_begins_like_the_whole_one(make_model, rows):
    latents, texts = rows
    model, seeds = make_model(), [(2, row) for row in range(len(texts))]
    whole = draw(model, latents, texts, seeds, SAMPLINGS["served"])
    limit = sorted(len(candidate.codes) for candidate in whole)[5]
    cut = draw(model, latents, texts, seeds, Sampling(max_codes=limit))
    for short, long in zip(cut, whole):
        assert short.codes == long.codes[:limit]
        # one code is too few to draw the stop after `limit` codes
        assert short.finished == (long.finished and len(long.codes) < limit)
    assert {candidate.finished for candidate in cut} == {True, False}


def test_codes_hold_no_stop_and_a_first_stop_gives_an_empty_candidate(make_model, rows):
    latents, texts = rows
    model = make_model(stop_bias=5.0)
    drawn = draw(model, latents, texts, [(1, row) for row in range(len(texts))], SAMPLINGS["served"])
    assert Candidate((), True) in drawn
    assert all(model.stop_speech not in candidate.codes for candidate in drawn)


def test_the_penalty_reaches_the_prompts_placeholders_and_the_start_token(make_model, rows):
    latents, texts = rows
    model = make_model()
    model.head.bias[1] = model.head.bias[model.start_speech] = 60.0
    one = Sampling(temperature=0, max_codes=1, repetition_penalty=1.0)
    assert {candidate.codes[0] for candidate in draw(model, latents, texts, [(0,)] * 12, one)} <= {
        1,
        model.start_speech,
    }
    harsh = Sampling(temperature=0, max_codes=1, repetition_penalty=1e6)
    assert not {1, model.start_speech} & {
        code for candidate in draw(model, latents, texts, [(0,)] * 12, harsh) for code in candidate.codes
    }


def test_voice_text_and_seed_each_matter(make_model, rows):
    latents, texts = rows
    model, sampling = make_model(), SAMPLINGS["served"]
    base, voice, text, seed = (
        draw(model, *change, sampling)[0].codes
        for change in (
            (latents[:1], texts[3:4], [(0, 0)]),
            (latents[1:2], texts[3:4], [(0, 0)]),
            (latents[:1], texts[4:5], [(0, 0)]),
            (latents[:1], texts[3:4], [(0, 1)]),
        )
    )
    assert len({base, voice, text, seed}) == 4


def test_nano_texts_in_a_batch_equal_one_at_a_time(nano, sentences):
    chosen = sorted(sentences[:400], key=len)[::33]
    texts = [nano.tokenize(sentence) for sentence in chosen]
    latents = torch.randn(len(texts), nano.autoregressive.head.in_features, generator=torch.Generator().manual_seed(0))
    seeds = list(range(100, 100 + len(texts)))
    batch = nano.candidates(texts, latents, 2, seeds)
    alone = [
        nano.candidates([text], latent, 2, seed)[0] for text, latent, seed in zip(texts, latents, seeds, strict=True)
    ]
    assert batch == alone
    assert len({pair[0].codes for pair in batch}) == len(texts)
