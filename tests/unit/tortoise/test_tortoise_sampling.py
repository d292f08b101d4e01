import numpy as np
import torch

from clvp_train.tortoise.sampling import Sampling, next_codes, uniforms

PLAIN = Sampling(temperature=1.0, top_k=1000, top_p=1.0, repetition_penalty=1.0)
LAST_UNIFORM = float(np.nextafter(np.float32(1), np.float32(0)))


def frequencies(logits: torch.Tensor, sampling: Sampling, penalised: list[int] = (), draws: int = 20_000):
    """The share of each code in evenly spread draws: its probability up to 1 / draws."""
    mask = torch.zeros(len(logits), dtype=torch.bool)
    mask[list(penalised)] = True
    grid = (torch.arange(draws) + 0.5) / draws
    codes, _ = next_codes(logits.expand(draws, -1), mask.expand(draws, -1), grid, sampling)
    return codes.bincount(minlength=len(logits)) / draws


def test_draws_have_the_frequencies_of_the_softmax():
    logits = torch.randn(30, generator=torch.Generator().manual_seed(0)) * 2
    torch.testing.assert_close(frequencies(logits, PLAIN), logits.softmax(0), rtol=0, atol=1e-4)


def test_frequencies_with_random_uniforms():
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(4000, -1)
    drawn, _ = next_codes(logits, torch.zeros_like(logits, dtype=torch.bool), uniforms([(3, 1)], 4000)[0], PLAIN)
    expected = 4000 * logits[0].softmax(0)
    chi_squared = ((drawn.bincount(minlength=3) - expected) ** 2 / expected).sum()
    assert chi_squared < 13.8  # p = 0.001


def test_temperature_sharpens():
    logits = torch.tensor([0.0, 1.0, 2.0])
    sampling = Sampling(temperature=0.5, top_k=3, top_p=1.0, repetition_penalty=1.0)
    torch.testing.assert_close(frequencies(logits, sampling), (logits / 0.5).softmax(0), rtol=0, atol=1e-4)


def test_top_k_and_top_p_keep_the_smallest_set():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    for kept, settings in [(2, {"top_p": 0.6}), (3, {"top_p": 0.75}), (1, {"top_p": 0.1}), (3, {"top_k": 3})]:
        sampling = Sampling(**{"temperature": 1.0, "top_k": 4, "top_p": 1.0, "repetition_penalty": 1.0, **settings})
        expected = torch.tensor([0.4, 0.3, 0.2, 0.1][:kept] + [0.0] * (4 - kept))
        torch.testing.assert_close(frequencies(logits, sampling), expected / expected.sum(), rtol=0, atol=1e-4)


def test_the_mass_of_top_p_is_that_of_the_top_k():
    # 0.5 of all is 0.5 / 0.8 = 0.625 of the two kept, more than top_p = 0.6
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    sampling = Sampling(temperature=1.0, top_k=2, top_p=0.6, repetition_penalty=1.0)
    assert frequencies(logits, sampling).tolist() == [1.0, 0.0, 0.0]


def test_the_penalty_divides_positive_and_multiplies_negative_logits():
    logits = torch.tensor([2.0, -1.0, 0.5, 0.0])
    sampling = Sampling(temperature=1.0, top_k=4, top_p=1.0, repetition_penalty=2.0)
    expected = torch.tensor([1.0, -2.0, 0.5, 0.0]).softmax(0)
    torch.testing.assert_close(frequencies(logits, sampling, penalised=[0, 1]), expected, rtol=0, atol=1e-4)


def test_temperature_zero_takes_the_most_likely_after_the_penalty():
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    penalised = torch.tensor([[False, False, False], [True, False, False]])
    sampling = Sampling(temperature=0, repetition_penalty=2.0)
    assert next_codes(logits, penalised, torch.full((2,), 0.99), sampling)[0].tolist() == [0, 1]


def test_the_extreme_uniforms_stay_in_the_nucleus():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 100, generator=draw) * 3
    free = torch.zeros_like(logits, dtype=torch.bool)
    sampling = Sampling(temperature=1.0, top_k=50, top_p=0.5, repetition_penalty=1.0)
    top, order = logits.double().topk(50, dim=1)
    mass = top.softmax(dim=1)
    sizes = (mass.cumsum(dim=1) - mass < 0.5).sum(dim=1)
    for end in (0.0, LAST_UNIFORM):
        drawn, _ = next_codes(logits, free, torch.full((500,), end), sampling)
        position = order == drawn[:, None]
        assert position.any(dim=1).all() and (position.int().argmax(dim=1) < sizes).all()
    assert (next_codes(logits, free, torch.zeros(500), sampling)[0] == logits.argmax(1)).all()


def test_uniforms_depend_only_on_their_seed():
    many = uniforms([(seed, k) for seed in range(50) for k in range(3)], 40)
    assert many.dtype == torch.float32 and many.min() >= 0 and many.max() <= LAST_UNIFORM
    assert torch.equal(uniforms([(7, 2)], 40)[0], many[7 * 3 + 2])
    assert torch.equal(uniforms([(7, 2)], 15)[0], many[7 * 3 + 2, :15])  # independent of the number drawn
    assert len({tuple(row) for row in many.tolist()}) == 150
    assert abs(many.mean() - 0.5) < 0.02


def test_the_log_probability_is_that_of_the_raw_logits():
    """Independent of penalty, temperature and nucleus."""
    logits = torch.randn(64, 90, generator=torch.Generator().manual_seed(0)) * 4
    for sampling in (Sampling(), Sampling(temperature=0), Sampling(top_k=3, top_p=0.3)):
        codes, log_probabilities = next_codes(logits.bfloat16(), logits > 3, torch.rand(64), sampling)
        expected = logits.bfloat16().double().log_softmax(1).gather(1, codes[:, None])[:, 0]
        torch.testing.assert_close(log_probabilities.double(), expected, rtol=1e-6, atol=1e-5)
