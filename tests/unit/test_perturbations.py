import numpy as np
import pytest

from clvp_train.data.perturbations import (
    FOREIGN,
    PERTURBATIONS,
    babble,
    cut_off,
    drop,
    foreign_stretch,
    foreign_tail,
    repeat,
    swap,
)

CODES = np.arange(100, 120)
OTHER = np.arange(200, 240)


def drawn(perturbation, share=0.25, codes=CODES, other=OTHER):
    """The codes that a perturbation returns for many seeds."""
    return [perturbation(codes, np.random.default_rng(seed), share, other).tolist() for seed in range(200)]


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(
    "codes",
    [[3], [3, 3], [3, 4], [3, 3, 3], [3, 4, 3], [5] * 40, [1, 2] * 20, list(range(41))],
    ids=lambda codes: f"{len(codes)}-{len(set(codes))}",
)
def test_every_perturbation_changes_every_sequence_and_leaves_something(name, share, codes):
    before = np.array(codes)
    for seed in range(40):
        for other in (OTHER, before, before[-1:], before[:0]):
            perturbed = PERTURBATIONS[name](before, np.random.default_rng(seed), share, other)
            assert len(perturbed) > 0 and perturbed.dtype == before.dtype and not np.array_equal(perturbed, before)
            perturbed[:] = -1
            assert before.tolist() == codes, "the argument is unchanged"


def test_the_same_seed_gives_the_same_codes():
    for perturbation in PERTURBATIONS.values():
        assert drawn(perturbation) == drawn(perturbation)


def test_cut_off_ends_early():
    assert drawn(cut_off)[0] == CODES[:15].tolist()


def test_repeat_duplicates_a_span_anywhere():
    copies = {tuple(CODES[: start + 5]) + tuple(CODES[start:]) for start in range(16)}
    assert set(map(tuple, drawn(repeat))) == copies


def test_drop_leaves_out_a_span_but_never_the_end():
    copies = {tuple(CODES[:start]) + tuple(CODES[start + 5 :]) for start in range(15)}
    assert set(map(tuple, drawn(drop))) == copies


def test_swap_exchanges_neighbouring_spans_anywhere():
    copies = {(*CODES[:s], *CODES[s + 5 : s + 10], *CODES[s : s + 5], *CODES[s + 10 :]) for s in range(11)}
    assert set(map(tuple, drawn(swap))) == copies


def test_swap_finds_spans_that_differ():
    assert set(map(tuple, drawn(swap, 0.5, np.array([1, 1, 1, 1, 1, 2])))) == {(1, 1, 2, 1, 1, 1)}
    codes = np.array([1, 2, 1, 2])
    assert all(sorted(copy) == [1, 1, 2, 2] for copy in drawn(swap, 0.5, codes)), "falls back to single codes"


def test_foreign_tail_ends_with_the_same_share_of_another_sentence():
    assert drawn(foreign_tail)[0] == [*CODES[:15], *OTHER[30:]]


def test_a_foreign_span_of_the_same_length_is_placed_anywhere():
    starts = set()
    for copy in drawn(foreign_stretch):
        (start,) = {position - offset for offset, position in enumerate(np.flatnonzero(np.array(copy) >= 200))}
        assert [*copy[:start], *CODES[start : start + 5], *copy[start + 5 :]] == CODES.tolist()
        assert np.diff(copy[start : start + 5]).tolist() == [1] * 4
        starts.add(start)
    assert starts == set(range(16))


def test_babble_appends_single_codes_of_another_sentence():
    copies = drawn(babble)
    assert all(copy[:20] == CODES.tolist() and len(copy) == 25 and min(copy[20:]) >= 200 for copy in copies)
    assert len({tuple(copy) for copy in copies}) > 190


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_codes_are_required(name):
    with pytest.raises(ValueError, match=f"{name} needs .*another sentence"):
        PERTURBATIONS[name](CODES, np.random.default_rng(0), 0.5)
