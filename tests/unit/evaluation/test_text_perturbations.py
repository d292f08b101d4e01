import numpy as np
import pytest

from clvp_train.evaluation.text_perturbations import (
    TEXT_PERTURBATIONS,
    change_number,
    drop_words,
    negate,
    repeat_words,
    replace_words,
    swap_words,
    text_of,
    words_of,
)

WORDS = ["in", "the", "beginning", "was", "the", "word"]
OTHER = ["a", "b", "c", "d", "e", "f", "g", "h"]


def drawn(perturbation, share=0.34, words=WORDS, other=OTHER):
    """The results of a perturbation with many seeds."""
    results = [perturbation(list(words), np.random.default_rng(seed), share, other) for seed in range(200)]
    return {None if words is None else " ".join(words) for words in results}


@pytest.mark.parametrize("name", TEXT_PERTURBATIONS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.99])
@pytest.mark.parametrize(
    "text", ["a", "a b", "two words", "was it not", "1984", "the the the", "in the beginning was one word"]
)
def test_every_perturbation_changes_a_text_or_does_not_apply(name, share, text):
    words = text.split()
    for seed in range(30):
        results = TEXT_PERTURBATIONS[name](list(words), np.random.default_rng(seed), share, OTHER)
        assert results is None or (results and (results != words or name == "drop_words"))


def test_spans_at_all_positions_are_dropped_repeated_swapped_and_replaced():
    assert "in the was the word" not in drawn(drop_words), "two words of six"
    assert drawn(drop_words) == {" ".join(WORDS[:start] + WORDS[start + 2 :]) for start in range(5)}
    assert drawn(repeat_words) == {" ".join(WORDS[: start + 2] + WORDS[start:]) for start in range(5)}
    assert "beginning was in the the word" in drawn(swap_words) and len(drawn(swap_words)) == 3
    assert {len(text.split()) for text in drawn(replace_words)} == {6}
    assert "in the c d the word" in drawn(replace_words)


def test_equal_spans_are_not_swapped_or_replaced():
    assert drawn(swap_words, 0.1, ["the", "The,", "the"]) == {None}
    assert None in drawn(replace_words, 0.1, ["a", "b"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in 7 days", {f"in {digit} days" for digit in "012345689"}),
        (
            "Four hundred men",
            {f"{word} hundred men" for word in ["One", "Two", "Three", "Five", "Six", "Seven", "Eight", "Nine"]},
        ),
        ("no number here", {None}),
    ],
)
def test_a_number_becomes_another_of_the_same_kind(text, expected):
    results = drawn(change_number, words=text.split())
    assert results >= expected if text.startswith("Four") else results == expected


def test_there_are_no_leading_zeros():
    assert not any(word.startswith("0") for word in drawn(change_number, words=["10"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("thou shalt not steal", "thou shalt steal"),
        ("he was there and is here", "he was not there and is here"),
        ("they went away", None),
        ("so it is", None),
    ],
)
def test_a_not_is_removed_or_inserted_after_the_first_auxiliary(text, expected):
    assert drawn(negate, words=text.split()) == {expected}


@pytest.mark.parametrize("text", ["two words", "один два", "我们走吧", "word"])
def test_words_are_joined_as_they_were_written(text):
    assert text_of(words_of(text), like=text) == text
    assert len(words_of(text)) == {"two words": 2, "один два": 2, "我们走吧": 4, "word": 1}[text]
