"""Codes that tortoise-tts 3.0.0 generates, under the transformers that it pins, against ours from the same file of weights."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from clvp_train.tortoise import FrozenTortoise

pytestmark = pytest.mark.tortoise
STOP = 97
TEXTS = ["So be it.", "a", "And the evening and the morning were the third day", "Verily, verily", "Amen", "go to"]
LIMIT = 90
DRAWS = 4000


@pytest.fixture(scope="module")
def latent() -> torch.Tensor:
    return torch.randn(64, generator=torch.Generator().manual_seed(3))


def with_stop_bias(folder: Path, bias: float, target: Path) -> Path:
    shutil.copytree(folder, target)
    state = torch.load(target / "autoregressive.pth", weights_only=True)
    state["mel_head.bias"][STOP] += bias
    torch.save(state, target / "autoregressive.pth")
    return target


def open_ours(folder: Path, positions: str = "served", **sampling) -> FrozenTortoise:
    return FrozenTortoise.from_original(folder, heads=2, positions=positions, sampling=sampling)


# with these, some candidates stop and others run into the limit
@pytest.mark.parametrize(("repetition_penalty", "stop_bias"), [(1.0, 0.6), (2.0, 0.3)])
@pytest.mark.parametrize(("kv_cache", "positions"), [(True, "served"), (False, "trained")])
def test_greedy_codes(
    tortoise_generate, tiny_shape, tiny_folder, tmp_path, latent, kv_cache, positions, repetition_penalty, stop_bias
):
    folder = with_stop_bias(tiny_folder, stop_bias, tmp_path / "original")
    ours = open_ours(folder, positions, temperature=0.0, repetition_penalty=repetition_penalty, max_codes=LIMIT)
    texts = [ours.tokenize(text) for text in TEXTS]
    settings = {"do_sample": False, "repetition_penalty": repetition_penalty, "max_generate_length": LIMIT}
    weights = str(folder / "autoregressive.pth")
    answer = tortoise_generate(
        texts, latent, weights=weights, shape=tiny_shape, kv_cache=kv_cache, threads=1, generate=settings
    )
    expected = [row for (row,) in answer["codes"]]
    drawn = [candidate for (candidate,) in ours.candidates(texts, latent, 1)]
    assert [[*candidate.codes, STOP] if candidate.finished else [*candidate.codes] for candidate in drawn] == expected
    assert {candidate.finished for candidate in drawn} == {True, False}
    assert answer["versions"]["transformers"] == "4.31.0"


def pairs_of(ours: FrozenTortoise, text: list[int], latent: torch.Tensor) -> Counter:
    (candidates,) = ours.candidates([text], latent, DRAWS)
    return Counter((*candidate.codes, STOP, STOP)[:2] for candidate in candidates)


def excess(one: Counter, other: Counter) -> float:
    """Pearson's statistic of two samples of the same size, in standard deviations above what one distribution gives.

    Outcomes seen less than 10 times are pooled."""
    common = [key for key in one | other if one[key] + other[key] >= 10]
    cells = [(one[key], other[key]) for key in common]
    cells.append((one.total() - sum(a for a, _ in cells), other.total() - sum(b for _, b in cells)))
    statistic = sum((a - b) ** 2 / (a + b) for a, b in cells if a + b)
    freedom = len(cells) - 1
    return (statistic - freedom) / (2 * freedom) ** 0.5


@pytest.mark.parametrize(
    ("settings", "others"),
    [
        # the defaults of `tts`; `generate` adds top_k=50
        (
            {"temperature": 0.8, "top_p": 0.8, "repetition_penalty": 2.0},
            [{"temperature": 1.0}, {"top_p": 0.9}, {"top_k": 5}],
        ),
        ({"temperature": 3.0, "top_p": 1.0, "repetition_penalty": 2.0}, [{"top_k": 97}]),
    ],
)
def test_distribution_of_the_first_codes(tortoise_generate, tiny_shape, tiny_folder, latent, settings, others):
    text = open_ours(tiny_folder).tokenize(TEXTS[0])
    drawing = {"do_sample": True, "num_return_sequences": DRAWS, "max_generate_length": 2, "length_penalty": 1.0}
    weights = str(tiny_folder / "autoregressive.pth")
    answer = tortoise_generate(
        [text], latent, weights=weights, shape=tiny_shape, threads=1, generate={**drawing, **settings}
    )
    expected = Counter((*row, STOP)[:2] for row in answer["codes"][0])
    assert expected.total() == DRAWS and len(expected) > 20
    assert excess(expected, pairs_of(open_ours(tiny_folder, **settings, max_codes=2), text, latent)) < 4
    for change in others:
        assert (
            excess(expected, pairs_of(open_ours(tiny_folder, **{**settings, **change}, max_codes=2), text, latent)) > 8
        )
