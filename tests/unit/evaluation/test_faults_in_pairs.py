import numpy as np
import pytest

from clvp_train.data.perturbations import PERTURBATIONS
from clvp_train.errors import UserError
from clvp_train.evaluation import PerturbationSuite
from clvp_train.evaluation.perturbation_suite import in_codes, in_texts, in_voices


def tokenize(text):
    return [int(word[1:]) if word[1:].isdigit() else 30 for word in text.split()]


def test_every_mistake_of_every_size_is_made_in_every_pair(held_out):
    pairs = held_out(23)
    found = in_codes(pairs, PerturbationSuite())
    assert [(perturbation.name, perturbation.share) for perturbation in found] == [
        (name, s) for name in PERTURBATIONS for s in (0.1, 0.25, 0.5)
    ]
    for perturbation in found:
        assert sorted(perturbation.rows) == list(range(23)) and perturbation.side == "speech"
        assert not any(
            np.array_equal(perturbed, pairs.codes[row])
            for row, perturbed in zip(perturbation.rows, perturbation.perturbed)
        )


def test_a_large_split_is_sampled_and_the_sample_is_always_the_same(held_out):
    suite = PerturbationSuite(num_pairs=10, seed=3)
    first, again = in_codes(held_out(40), suite), in_codes(held_out(40), suite)
    assert len(set(first[0].rows)) == 10 and first[0].rows == first[5].rows == again[0].rows
    assert all(np.array_equal(*both) for both in zip(first[7].perturbed, again[7].perturbed))
    assert in_codes(held_out(40), PerturbationSuite(num_pairs=10, seed=4))[0].rows != first[0].rows


def test_mistakes_in_texts_are_tokenized_and_left_out_where_there_is_nothing_to_spoil(held_out):
    pairs = held_out(23)
    found = {
        (perturbation.name, perturbation.share): perturbation
        for perturbation in in_texts(pairs, PerturbationSuite(), tokenize)
    }
    dropped = found["drop_words", 0.25]
    for row, perturbed in zip(dropped.rows, dropped.perturbed):
        assert len(perturbed) == len(pairs.input_ids[row]) - max(1, round(0.25 * len(pairs.input_ids[row])))
    assert found["change_number", None].side == "text" and ("negate", None) not in found


def test_a_voice_changes_in_mid_sentence(held_out, candidate_sets):
    pairs = held_out(12)  # the texts of the candidates, in voices v0 to v2
    (perturbation,) = in_voices(pairs, candidate_sets, PerturbationSuite(shares=[0.5]))
    assert perturbation.rows == list(range(12))
    for row, perturbed in zip(perturbation.rows, perturbation.perturbed):
        kept = len(pairs.codes[row]) - round(0.5 * len(pairs.codes[row]))
        assert np.array_equal(perturbed[:kept], pairs.codes[row][:kept]) and not np.array_equal(
            perturbed, pairs.codes[row]
        )


def test_what_lies_behind_the_last_code_that_is_served_is_no_mistake(held_out):
    pairs = held_out(23)
    limit = min(len(codes) for codes in pairs.codes)
    object.__setattr__(pairs, "codes", [codes[:limit] for codes in pairs.codes])
    found = {
        perturbation.name: perturbation for perturbation in in_codes(pairs, PerturbationSuite(shares=[0.25]), limit)
    }
    assert "babble" not in found and len(found["cut_off"].rows) == 23
    assert all(len(codes) >= limit for codes in found["repeat"].perturbed)


def test_without_a_second_voice_there_is_no_change_of_voice(held_out, candidate_sets):
    pairs = held_out(12)
    object.__setattr__(candidate_sets.pairs, "voices", ["one"] * len(candidate_sets.pairs))
    object.__setattr__(pairs, "voices", ["one"] * 12)
    assert in_voices(pairs, candidate_sets, PerturbationSuite()) == []


@pytest.mark.parametrize("shares", [[], [0.0], [1.0], [0.1, 2], 0.5 + 1, ["a"]])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(UserError, match="perturbations.shares"):
        PerturbationSuite(shares=shares)
