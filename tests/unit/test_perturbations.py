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
    """What a perturbation makes with many seeds."""
    return [perturbation(codes, np.random.default_rng(seed), share, other).tolist() for seed in range(200)]


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(
    "codes",
    [[3], [3, 3], [3, 4], [3, 3, 3], [3, 4, 3], [5] * 40, [1, 2] * 20, list(range(41))],
    ids=lambda codes: f"{len(codes)}-{len(set(codes))}",
)
def test_every_fault_changes_every_sequence_and_leaves_something(name, share, codes):
    before = np.array(codes)
    for seed in range(40):
        for other in (OTHER, before, before[-1:], before[:0]):
            perturbed = PERTURBATIONS[name](before, np.random.default_rng(seed), share, other)
            assert len(perturbed) > 0 and perturbed.dtype == before.dtype and not np.array_equal(perturbed, before)
            perturbed[:] = -1
            assert before.tolist() == codes, "the codes themselves are left as they are"


def test_the_same_seed_makes_the_same_mistake():
    for perturbation in PERTURBATIONS.values():
        assert drawn(perturbation) == drawn(perturbation)


def test_cut_off_ends_early():
    assert drawn(cut_off)[0] == CODES[:15].tolist()


def test_repeat_says_a_stretch_twice_wherever_it_lies():
    copies = {tuple(CODES[: start + 5]) + tuple(CODES[start:]) for start in range(16)}
    assert set(map(tuple, drawn(repeat))) == copies


def test_drop_leaves_a_stretch_out_but_never_the_end():
    copies = {tuple(CODES[:start]) + tuple(CODES[start + 5 :]) for start in range(15)}
    assert set(map(tuple, drawn(drop))) == copies


def test_swap_exchanges_neighbouring_stretches_wherever_they_lie():
    copies = {(*CODES[:s], *CODES[s + 5 : s + 10], *CODES[s : s + 5], *CODES[s + 10 :]) for s in range(11)}
    assert set(map(tuple, drawn(swap))) == copies


def test_swap_looks_for_stretches_that_differ():
    assert set(map(tuple, drawn(swap, 0.5, np.array([1, 1, 1, 1, 1, 2])))) == {(1, 1, 2, 1, 1, 1)}
    codes = np.array([1, 2, 1, 2])
    assert all(sorted(copy) == [1, 1, 2, 2] for copy in drawn(swap, 0.5, codes)), "of single codes if need be"


def test_foreign_tail_ends_with_the_same_share_of_another_sentence():
    assert drawn(foreign_tail)[0] == [*CODES[:15], *OTHER[30:]]


def test_a_foreign_stretch_of_the_same_length_stands_anywhere():
    starts = set()
    for copy in drawn(foreign_stretch):
        (start,) = {place - offset for offset, place in enumerate(np.flatnonzero(np.array(copy) >= 200))}
        assert [*copy[:start], *CODES[start : start + 5], *copy[start + 5 :]] == CODES.tolist()
        assert np.diff(copy[start : start + 5]).tolist() == [1] * 4
        starts.add(start)
    assert starts == set(range(16))


def test_babble_goes_on_with_single_codes_of_another_sentence():
    copies = drawn(babble)
    assert all(copy[:20] == CODES.tolist() and len(copy) == 25 and min(copy[20:]) >= 200 for copy in copies)
    assert len({tuple(copy) for copy in copies}) > 190


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_foreign_must_come_from_somewhere(name):
    with pytest.raises(ValueError, match=f"{name} needs .*another sentence"):
        PERTURBATIONS[name](CODES, np.random.default_rng(0), 0.5)
