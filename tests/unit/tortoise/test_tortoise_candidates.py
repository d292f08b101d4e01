"""Continuous batching against a naive loop over one row, without a cache."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from clvp_train.tortoise import Candidate, Sampling, generation
from clvp_train.tortoise.decoder import Decoder
from clvp_train.tortoise.generation import Prompt, draw
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
def prompts():
    random = torch.Generator().manual_seed(1)
    texts = [torch.randint(1, 255, (length,), generator=random).tolist() for length in TEXT_LENGTHS]
    latents = torch.randn(len(texts), 64, generator=random)
    return [Prompt(latent, tuple(text), (17, row)) for row, (latent, text) in enumerate(zip(latents, texts))]


def drawn(model, prompts, sampling, num_slots, on_candidate=None):
    return draw(Decoder(model, sampling, num_slots, max(prompt.length for prompt in prompts)), prompts, on_candidate)


@torch.no_grad()
def naive(model, prompt, sampling) -> Candidate:
    uniform = uniforms([prompt.seed], sampling.max_codes)[0]
    codes: list[int] = []
    log_probability = 0.0
    while len(codes) < sampling.max_codes:
        given = torch.tensor([codes], dtype=torch.long)
        logits = model(prompt.latent_D[None], [prompt.text], given)[:, -1]
        penalised = torch.zeros_like(logits, dtype=torch.bool)
        penalised[0, [*sampling.penalised_ids, model.start_speech, *codes]] = True
        code = int(next_codes(logits, penalised, uniform[len(codes)][None], sampling)[0])
        log_probability += float(logits[0].double().log_softmax(0)[code])
        if code == model.stop_speech:
            return Candidate(tuple(codes), True, log_probability)
        codes.append(code)
    return Candidate(tuple(codes), False, log_probability)


def same(one: list[Candidate], other: list[Candidate]) -> bool:
    assert [candidate.log_probability for candidate in one] == pytest.approx(
        [candidate.log_probability for candidate in other], abs=1e-2, rel=1e-5
    )
    return [(c.codes, c.finished) for c in one] == [(c.codes, c.finished) for c in other]


@pytest.mark.parametrize("num_slots", [1, 5, 12])
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_candidates_against_naive_computation(model, prompts, sampling, num_slots):
    results = drawn(model, prompts, sampling, num_slots)
    assert same(results, [naive(model, prompt, sampling) for prompt in prompts])
    lengths = [len(candidate.codes) for candidate in results]
    assert min(lengths) + 30 < max(lengths) and len(set(lengths)) > 4


@pytest.mark.parametrize("seed", range(2))
def test_candidates_are_independent_of_slots_and_order(make_model, prompts, seed):
    model, sampling = make_model(), SAMPLINGS["unpenalised"]
    prompts = [Prompt(prompt.latent_D, prompt.text, (seed, row)) for row, prompt in enumerate(prompts)] * 2
    expected = drawn(model, prompts, sampling, 24)
    assert same(expected, drawn(model, prompts[::-1], sampling, 7)[::-1])
    assert same(expected, drawn(model, prompts[:5], sampling, 3) + drawn(model, prompts[5:], sampling, 100))


@pytest.mark.parametrize(("refill", "sync_every"), [(0.01, 1), (1.0, 1), (0.5, 3), (1 / 16, 8)])
def test_refill_and_sync_intervals_change_no_code(make_model, prompts, monkeypatch, refill, sync_every):
    model, sampling = make_model(), SAMPLINGS["unpenalised"]
    expected = drawn(model, prompts * 3, sampling, 12)
    monkeypatch.setattr(generation, "REFILL", refill)
    slots = Decoder(model, sampling, 8, max(prompt.length for prompt in prompts))
    slots.sync_every = sync_every  # as on a GPU, where the host learns only after some steps that a candidate has ended
    steps = set()
    step = slots.step
    monkeypatch.setattr(slots, "step", lambda *sizes: steps.add(sizes) or step(*sizes))
    assert same(draw(slots, prompts * 3), expected)
    assert {8, 4} <= {num_slots for num_slots, _ in steps} and len({length for _, length in steps}) > 1


def test_a_reused_decoder_gives_equal_results(make_model, prompts):
    model, sampling = make_model(), SAMPLINGS["served"]
    slots = Decoder(model, sampling, 4, max(prompt.length for prompt in prompts))
    draw(slots, prompts[::-1])
    assert draw(slots, prompts[4:]) == drawn(model, prompts[4:], sampling, 4)  # to the last bit


@pytest.mark.parametrize("num_slots", [3, 4, 20])
def test_the_cache_is_resized_in_use(make_model, prompts, monkeypatch, num_slots):
    model, sampling = make_model(stop_bias=2.0), SAMPLINGS["unpenalised"]
    slots = Decoder(model, sampling, num_slots, 71)
    slots.bucket = 8
    sizes, resize = [], slots.cache.resize
    monkeypatch.setattr(slots.cache, "resize", lambda capacity: sizes.append(capacity) or resize(capacity))
    assert same(draw(slots, prompts), [naive(model, prompt, sampling) for prompt in prompts])
    assert same(draw(slots, prompts[::2]), [naive(model, prompt, sampling) for prompt in prompts[::2]])
    steps = [after - before for before, after in zip(sizes, sizes[1:])]
    assert min(steps) < 0 < max(steps)


def test_candidates_of_one_text_and_voice_share_a_prefill(make_model, prompts):
    model, sampling = make_model(), Sampling(max_codes=20)
    several = [Prompt(prompts[3].latent_D.clone(), prompts[3].text, (1, k)) for k in range(6)]
    several += [Prompt(prompts[4].latent_D, prompts[3].text, (1, 0)), prompts[7]]
    slots, rows = Decoder(model, sampling, 8, prompts[3].length), []
    prompt = model.prompt
    model.prompt = lambda latents, texts: rows.append(len(texts)) or prompt(latents, texts)
    results = draw(slots, several)
    assert rows == [3]
    model.prompt = prompt
    assert same(results, [naive(model, prompt, sampling) for prompt in several])


def test_on_candidate_is_called_once_per_candidate(make_model, prompts):
    reported: list[Candidate] = []
    results = drawn(make_model(), prompts, SAMPLINGS["served"], 5, reported.append)
    assert sorted(reported, key=repr) == sorted(results, key=repr) and reported != results


def test_candidates_cut_off_at_the_limit(make_model, prompts):
    model = make_model()
    complete = drawn(model, prompts, SAMPLINGS["served"], 12)
    limit = sorted(len(candidate.codes) for candidate in complete)[5]
    cut = drawn(model, prompts, Sampling(max_codes=limit), 7)
    for short, long in zip(cut, complete):
        assert short.codes == long.codes[:limit]
        # the stop token after `limit` codes is not drawn
        assert short.finished == (long.finished and len(long.codes) < limit)
    assert {candidate.finished for candidate in cut} == {True, False}


def test_an_immediate_stop_gives_an_empty_candidate(make_model, prompts):
    model = make_model(stop_bias=5.0)
    results = drawn(model, prompts, SAMPLINGS["served"], 12)
    assert ((), True) in [(candidate.codes, candidate.finished) for candidate in results]
    assert all(model.stop_speech not in candidate.codes for candidate in results)


def test_the_penalty_reaches_the_prompts_placeholders_and_the_start_token(make_model, prompts):
    model = make_model()
    model.head.bias[1] = model.head.bias[model.start_speech] = 60.0
    one = Sampling(temperature=0, max_codes=1, repetition_penalty=1.0)
    assert {candidate.codes[0] for candidate in drawn(model, prompts, one, 12)} <= {1, model.start_speech}
    harsh = Sampling(temperature=0, max_codes=1, repetition_penalty=1e6)
    assert not {1, model.start_speech} & {candidate.codes[0] for candidate in drawn(model, prompts, harsh, 12)}


def test_voice_text_and_seed_change_the_candidate(make_model, prompts):
    model, (first, other) = make_model(), prompts[3:5]
    changes = [replace(first, **{field: getattr(other, field)}) for field in ("seed", "latent_D", "text")] + [first]
    assert len({candidate.codes for candidate in drawn(model, changes, SAMPLINGS["served"], 4)}) == 4


def test_no_prompts_give_no_candidates(nano):
    assert nano.candidates([], torch.zeros(nano.autoregressive.head.in_features), 3) == []


def test_nano_texts_in_a_batch_equal_one_at_a_time(nano, sentences):
    chosen = sorted(sentences[:400], key=len)[::33]
    texts = [nano.tokenize(sentence) for sentence in chosen]
    latents = torch.randn(len(texts), nano.autoregressive.head.in_features, generator=torch.Generator().manual_seed(0))
    seeds = list(range(100, 100 + len(texts)))
    batch = nano.candidates(texts, latents, 2, seeds, batch_size=9)
    for pair, text, latent, seed in zip(batch, texts, latents, seeds, strict=True):
        assert same(pair, nano.candidates([text], latent, 2, seed)[0])
    assert len({pair[0].codes for pair in batch}) == len(texts)


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_a_step_neither_synchronises_nor_moves_its_tensors(make_model, sampling):
    """As CUDA graphs require. Fake CUDA tensors need no GPU, and refuse operations that depend on their values."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        model = make_model()
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                fake = torch.empty(parameter.shape, device="cuda")
                setattr(module, name, torch.nn.Parameter(fake, requires_grad=False))
        slots = Decoder(model, sampling, 8, 40)
        assert slots.static and slots.sync_every > 1
        tensors = *slots._state(), slots.cache.keys, slots.cache.values
        slots._step(4, 64)
        assert all(tensor.device.type == "cuda" for tensor in tensors)
        assert all(one is other for one, other in zip(tensors, (*slots._state(), slots.cache.keys, slots.cache.values)))
        with pytest.raises(DynamicOutputShapeException):
            slots.ended(4)
