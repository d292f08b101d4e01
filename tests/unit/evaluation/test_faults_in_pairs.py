import numpy as np
import pytest

from clvp_train.errors import UserError
from clvp_train.evaluation import FaultSuite
from clvp_train.evaluation.faults import in_codes, in_texts, in_voices
from clvp_train.faults import FAULTS


def tokenize(text):
    return [int(word[1:]) if word[1:].isdigit() else 30 for word in text.split()]


def test_every_mistake_of_every_size_is_made_in_every_pair(held_out):
    pairs = held_out(23)
    found = in_codes(pairs, FaultSuite())
    assert [(fault.name, fault.share) for fault in found] == [(name, s) for name in FAULTS for s in (0.1, 0.25, 0.5)]
    for fault in found:
        assert sorted(fault.rows) == list(range(23)) and fault.side == "speech"
        assert not any(np.array_equal(faulty, pairs.codes[row]) for row, faulty in zip(fault.rows, fault.faulty))


def test_a_large_split_is_sampled_and_the_sample_is_always_the_same(held_out):
    suite = FaultSuite(num_pairs=10, seed=3)
    first, again = in_codes(held_out(40), suite), in_codes(held_out(40), suite)
    assert len(set(first[0].rows)) == 10 and first[0].rows == first[5].rows == again[0].rows
    assert all(np.array_equal(*both) for both in zip(first[7].faulty, again[7].faulty))
    assert in_codes(held_out(40), FaultSuite(num_pairs=10, seed=4))[0].rows != first[0].rows


def test_mistakes_in_texts_are_tokenized_and_left_out_where_there_is_nothing_to_spoil(held_out):
    pairs = held_out(23)
    found = {(fault.name, fault.share): fault for fault in in_texts(pairs, FaultSuite(), tokenize)}
    dropped = found["drop_words", 0.25]
    for row, faulty in zip(dropped.rows, dropped.faulty):
        assert len(faulty) == len(pairs.input_ids[row]) - max(1, round(0.25 * len(pairs.input_ids[row])))
    assert found["change_number", None].side == "text" and ("negate", None) not in found


def test_a_voice_changes_in_mid_sentence(held_out, candidate_sets):
    pairs = held_out(12)  # the texts of the candidates, in voices v0 to v2
    (fault,) = in_voices(pairs, candidate_sets, FaultSuite(shares=[0.5]))
    assert fault.rows == list(range(12))
    for row, faulty in zip(fault.rows, fault.faulty):
        kept = len(pairs.codes[row]) - round(0.5 * len(pairs.codes[row]))
        assert np.array_equal(faulty[:kept], pairs.codes[row][:kept]) and not np.array_equal(faulty, pairs.codes[row])


def test_what_lies_behind_the_last_code_that_is_served_is_no_mistake(held_out):
    pairs = held_out(23)
    limit = min(len(codes) for codes in pairs.codes)
    object.__setattr__(pairs, "codes", [codes[:limit] for codes in pairs.codes])
    found = {fault.name: fault for fault in in_codes(pairs, FaultSuite(shares=[0.25]), limit)}
    assert "babble" not in found and len(found["cut_off"].rows) == 23
    assert all(len(codes) >= limit for codes in found["repeat"].faulty)


def test_without_a_second_voice_there_is_no_change_of_voice(held_out, candidate_sets):
    pairs = held_out(12)
    object.__setattr__(candidate_sets.pairs, "voices", ["one"] * len(candidate_sets.pairs))
    object.__setattr__(pairs, "voices", ["one"] * 12)
    assert in_voices(pairs, candidate_sets, FaultSuite()) == []


@pytest.mark.parametrize("shares", [[], [0.0], [1.0], [0.1, 2], 0.5 + 1, ["a"]])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(UserError, match="faults.shares"):
        FaultSuite(shares=shares)
