import numpy as np

from clvp_train.data.perturbations import PERTURBATIONS
from clvp_train.evaluation import PerturbationSuite
from clvp_train.evaluation.perturbation_suite import change_voices, perturb_codes, perturb_texts


def tokenize(text):
    return [int(word[1:]) if word[1:].isdigit() else 30 for word in text.split()]


def test_every_perturbation_of_every_size_applies_to_every_pair(held_out):
    pairs = held_out(23)
    results = perturb_codes(pairs, PerturbationSuite())
    assert [(perturbation.name, perturbation.share) for perturbation in results] == [
        (name, s) for name in PERTURBATIONS for s in (0.1, 0.25, 0.5)
    ]
    for perturbation in results:
        assert sorted(perturbation.rows) == list(range(23)) and perturbation.side == "speech"
        assert not any(
            np.array_equal(perturbed, pairs.codes[row])
            for row, perturbed in zip(perturbation.rows, perturbation.perturbed)
        )


def test_a_large_split_is_sampled_deterministically(held_out):
    suite = PerturbationSuite(num_pairs=10, seed=3)
    first, again = perturb_codes(held_out(40), suite), perturb_codes(held_out(40), suite)
    assert len(set(first[0].rows)) == 10 and first[0].rows == first[5].rows == again[0].rows
    assert all(np.array_equal(*both) for both in zip(first[7].perturbed, again[7].perturbed))
    assert perturb_codes(held_out(40), PerturbationSuite(num_pairs=10, seed=4))[0].rows != first[0].rows


def test_perturbed_texts_are_tokenized_and_left_out_if_not_applicable(held_out):
    pairs = held_out(23)
    results = {
        (perturbation.name, perturbation.share): perturbation
        for perturbation in perturb_texts(pairs, PerturbationSuite(), tokenize)
    }
    dropped = results["drop_words", 0.25]
    for row, perturbed in zip(dropped.rows, dropped.perturbed):
        assert len(perturbed) == len(pairs.input_ids[row]) - max(1, round(0.25 * len(pairs.input_ids[row])))
    assert results["change_number", None].side == "text" and ("negate", None) not in results


def test_the_end_is_in_another_voice(held_out, candidate_sets):
    pairs = held_out(12)  # the texts of the candidates, in voices v0 to v2
    (perturbation,) = change_voices(pairs, candidate_sets, PerturbationSuite(shares=[0.5]))
    assert perturbation.rows == list(range(12))
    for row, perturbed in zip(perturbation.rows, perturbation.perturbed):
        kept = len(pairs.codes[row]) - round(0.5 * len(pairs.codes[row]))
        assert np.array_equal(perturbed[:kept], pairs.codes[row][:kept]) and not np.array_equal(
            perturbed, pairs.codes[row]
        )


def test_perturbations_behind_the_limit_are_left_out(held_out):
    pairs = held_out(23)
    limit = min(len(codes) for codes in pairs.codes)
    object.__setattr__(pairs, "codes", [codes[:limit] for codes in pairs.codes])
    results = {
        perturbation.name: perturbation
        for perturbation in perturb_codes(pairs, PerturbationSuite(shares=[0.25]), limit)
    }
    assert "babble" not in results and len(results["cut_off"].rows) == 23
    assert all(len(codes) >= limit for codes in results["repeat"].perturbed)


def test_one_voice_gives_no_voice_perturbation(held_out, candidate_sets):
    pairs = held_out(12)
    object.__setattr__(candidate_sets.pairs, "voices", ["one"] * len(candidate_sets.pairs))
    object.__setattr__(pairs, "voices", ["one"] * 12)
    assert change_voices(pairs, candidate_sets, PerturbationSuite()) == []
