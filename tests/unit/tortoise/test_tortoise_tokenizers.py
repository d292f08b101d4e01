"""Custom tokenizers, and the normalizer of Tortoise's, which `tests/parity` compares with tortoise-tts on thousands of texts."""

import json
import shutil

import pytest
from transformers import AutoTokenizer

from clvp_train.errors import UserError
from clvp_train.pairs import ARCodes
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.normalizer import TortoiseNormalizer
from clvp_train.tortoise.tokenizer import (
    loses_most_letters,
    read_custom_tokenizer,
    read_original_tokenizer,
    read_saved_tokenizer,
    train_custom_tokenizer,
)

TEXTS = [
    "Ο ήλιος ανατέλλει.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι,",
    "και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
]
TEXTS += ["Все люди рождаются свободными и равными.", "Ｆｕｌｌ  width\tand tabs"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_custom_tokenizer(TEXTS, vocab_size=120)


def test_letters_are_lower_cased_and_composed(tokenizer):
    for text, expected in zip(TEXTS, [*(text.lower() for text in TEXTS[:4]), "full width and tabs"]):
        ids = tokenizer(text)["input_ids"]
        assert "".join(tokenizer.convert_ids_to_tokens(ids)) == expected
        assert min(ids) >= 2 and max(ids) < len(tokenizer) <= 120


def test_frequent_words_are_one_token_and_none_crosses_a_word(tokenizer):
    assert len(tokenizer("και")["input_ids"]) == 1
    assert all(token == " " or " " not in token for token in tokenizer.get_vocab())


def test_an_unknown_letter_and_the_name_of_a_special_token_are_text(tokenizer):
    assert tokenizer("x")["input_ids"] == [1]
    assert len(tokenizer("[STOP]")["input_ids"]) > 1 and tokenizer.pad_token_id == 0


def test_a_saved_one_gives_the_same_ids_in_transformers(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    for opened in (read_custom_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        for text in [*TEXTS, "[STOP] x"]:
            assert opened(text)["input_ids"] == tokenizer(text)["input_ids"]


@pytest.mark.parametrize(
    ("texts", "vocab_size", "message"),
    [([], 255, "no letters"), (["  "], 255, "no letters"), (TEXTS, 30, "vocab_size=30: too few")],
)
def test_unsuitable_corpora_and_folders_are_refused(tmp_path, texts, vocab_size, message):
    with pytest.raises(UserError, match=message):
        train_custom_tokenizer(texts, vocab_size)
    with pytest.raises(UserError, match=r"tortoise.tokenizer=.*: no tokenizer.json.*train_tokenizer"):
        read_custom_tokenizer(tmp_path)


def test_a_custom_tokenizer_is_for_recordings_only(nano, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "greek")
    tortoise = FrozenTortoise.from_pretrained(nano.source, tokenizer=tmp_path / "greek")
    assert tortoise.num_text_tokens == len(tokenizer) != nano.num_text_tokens
    assert tortoise.tokenizer("και")["input_ids"] == tokenizer("και")["input_ids"]
    assert tortoise.fingerprint() != nano.fingerprint()
    for call in (lambda: tortoise.tokenize("και"), lambda: ARCodes("voices").check(tortoise)):
        with pytest.raises(UserError, match=r"tortoise.tokenizer=.*not the tokenizer of the AR.*Use codes=dvae"):
            call()
    tortoise.save_pretrained(tmp_path / "saved")
    assert FrozenTortoise.from_pretrained(tmp_path / "saved").tokenize("So.") == nano.tokenize("So.")


@pytest.mark.parametrize(
    ("text", "is_lost"),
    [("και", False), ("Και 5 xyzq", True), ("Και xy", False), ("你好", True), ("1, 2!", False), ("éàü", True)],
)
def test_letters_that_a_custom_tokenizer_does_not_know(tokenizer, text, is_lost):
    assert loses_most_letters(tokenizer, text) == is_lost


LETTERS = {"german": "aäeghirtuß", "greek": "αβγδεικς", "japanese": "かな漢字"}


@pytest.mark.parametrize(
    ("language", "text", "tokens"),
    [
        ("german", "Äh, ja\n ruß", ["ä", "h", "[UNK]", "▁", "[UNK]", "a", "▁", "r", "u", "ß"]),
        ("german", "der Tiger", ["[UNK]", "er", "▁", "t", "i", "g", "er"]),
        ("greek", "Και", ["κ", "α", "ι"]),
        ("greek", "[STOP]", ["[UNK]"] * 6),
        ("japanese", "漢字かな", ["漢", "字", "か", "な"]),
    ],
)
def test_a_tokenizer_of_another_language_has_no_english_rules(tmp_path, language, text, tokens):
    vocabulary = {name: id_ for id_, name in enumerate(["[STOP]", "[UNK]", "[SPACE]", *LETTERS[language], "er"])}
    model = {"type": "BPE", "vocab": vocabulary, "merges": ["e r"] if language == "german" else []}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    tokenizer = read_original_tokenizer(tmp_path / "tokenizer.json")
    tokenizer.save_pretrained(tmp_path / "saved")
    for opened in (tokenizer, read_saved_tokenizer(tmp_path / "saved")):
        ids = opened(text)["input_ids"]
        assert opened.convert_ids_to_tokens(ids) == tokens
        assert ids == [vocabulary[token.replace("▁", "[SPACE]")] for token in tokens]


@pytest.mark.parametrize("file", ["vocab.json", "merges.txt"])
@pytest.mark.parametrize("content", ["", "{}", "#version: 0.2\n"])
def test_an_empty_file_of_a_tokenizer_without_digests_is_refused(nano, tmp_path, file, content):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(nano.source / name, tmp_path)
    assert read_saved_tokenizer(tmp_path)("So.")["input_ids"] == nano.tokenize("So.")
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=f"{tmp_path}: .*opy"):
        read_saved_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Don’t — “naïve” Straße…", "don't -- naive strasse..."),
        ("1066, 1900, 1905, 1984, 2000, 2007, 2020", "ten sixty-six, nineteen hundred, nineteen oh five, nineteen eighty-four, two thousand, two thousand seven, twenty twenty"),
        ("3025 and 3125", "three thousand twenty-five and three thousand, one hundred twenty-five"),
        ("1,000,007", "one million seven"),
        ("1st 5th 12th 20th 101st 1100th", "first fifth twelfth twentieth one hundred and first one thousand, one hundredth"),
        ("$5.50, $1, 3.14", "five dollars, fifty cents, one dollar, three point fourteen"),
        ("Dr. Smith\n of St.  Ives", "doctor smith of saint ives"),
        ("Привет", ""),
        ("1" * 5000, " "),
        ("1,000,000,000,000,000,007", "one quintillion seven"),
        ("$20000000000000000000.10", "twenty quintillion dollars, ten cents"),
        ("3.00000000000000000001", "three point one"),
        ("4" + "0" * 35 + "th", "four hundred decillionth"),
        ("2" + "0" * 36 + ".", "two" + " zero" * 36 + "."),
        ("No. " + "12" * 20, "no. " + " ".join(["one two"] * 20)),
    ],
)  # fmt: skip
def test_normalized_texts(written, spoken):
    assert TortoiseNormalizer()(written) == spoken
