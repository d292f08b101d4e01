"""The split of a text never changes: users rely on these values."""

import sys
import unicodedata
from collections import Counter
from dataclasses import replace

import pytest

from clvp_train.corpus import TextLines, Utterance, fingerprint, split_of, text_key
from clvp_train.errors import UserError

PINNED = {
    "Hello world.": "train",
    "The quick brown fox jumps over the lazy dog.": "test",
    "And worketh miracles among you.": "val",
    "Guten Morgen, wie geht's?": "train",
    "你好，世界。": "test",
    "शुभ प्रभात": "val",
    "Привет, мир!": "val",
    "صباح الخير": "val",
    "?!": "train",
    "In 1455": "test",
    "Thank you.": "train",
    "Goodbye": "test",
    "please try again": "train",
    "one": "val",
    "two": "train",
    "three": "test",
}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Hello,  World!", "hello world"),
        ("It's well-known \u2014 here.", "its well known here"),
        ("STRASSE Straße", "strasse strasse"),
        ("ＦＵＬＬ　ｗｉｄｔｈ", "full width"),
        ("cafe\u0301", "café"),
        ("¿Qué tal?", "qué tal"),
        ("你好，世界。", "你好世界"),
        ("शुभ प्रभात।", "शुभ प्रभात"),
        ("می\u200cخواهم", "میخواهم"),
        ("1 + 1 = 2", "1 + 1 = 2"),
        (" ?! ", "?!"),
        ("。", "。"),
    ],
)
def test_text_key(text, key):
    assert text_key(text) == key
    assert text_key(key) == key


def naive_key(text):
    kept = []
    for char in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()):
        category = unicodedata.category(char)
        if char.isspace() or category == "Pd":
            kept.append(" ")
        elif category[0] != "P" and category not in ("Cc", "Cf"):
            kept.append(char)
    return " ".join("".join(kept).split())


def test_text_key_equals_the_naive_one_for_every_character():
    for code in range(sys.maxunicode + 1):
        text = f"a{chr(code)}b"
        assert text_key(text) == naive_key(text), hex(code)


@pytest.mark.parametrize(("text", "split"), PINNED.items())
def test_split_is_pinned(text, split):
    assert split_of(text, test_percent=20, val_percent=20) == split


def test_equal_texts_share_a_split():
    for number in range(200):
        assert split_of(f"Sentence {number}.", 30, 30) == split_of(f"  sentence {number}", 30, 30)


def test_shares():
    counts = Counter(split_of(f"sentence {number}", 5, 10) for number in range(20_000))
    assert counts["test"] == pytest.approx(1000, abs=120)
    assert counts["val"] == pytest.approx(2000, abs=160)
    assert split_of("x", 0, 0) == "train"
    assert split_of("x", 100, 0) == "test"
    assert split_of("x", 0, 100) == "val"


def test_test_split_ignores_val_and_only_grows():
    texts = [f"sentence {number}" for number in range(2000)]

    def test_split(test: float, val: float) -> set[str]:
        return {text for text in texts if split_of(text, test, val) == "test"}

    assert test_split(5, 0) == test_split(5, 50)
    assert test_split(5, 5) < test_split(10, 5)


@pytest.mark.parametrize(("test", "val"), [(-1, 5), (5, -1), (60, 50), (float("nan"), 5)])
def test_bad_percents(test, val):
    with pytest.raises(UserError, match="split.test_percent=.*split.val_percent="):
        split_of("x", test, val)


def test_fingerprint(tmp_path):
    audio = tmp_path / "a.wav"
    audio.write_bytes(b"123")
    base = Utterance("id", "text", str(audio), "speaker")
    known = fingerprint([base])
    assert known == "8a879ee5ba7664909e21b020c113beab"
    moved = tmp_path / "moved.wav"
    moved.write_bytes(b"456")
    assert fingerprint([replace(base, audio=str(moved))]) == known, "path and time of a file do not count"
    moved.write_bytes(b"4567")
    for change in (
        {"id": "i"},
        {"text": "t"},
        {"speaker": None},
        {"audio": None},
        {"audio": b"1"},
        {"audio": str(moved)},
    ):
        assert fingerprint([replace(base, **change)]) != known, change
    assert fingerprint([replace(base, audio=b"1")]) != fingerprint([replace(base, audio=b"2")])
    assert fingerprint([base, replace(base, id="2")]) != fingerprint([replace(base, id="2"), base])
    (tmp_path / "lines.txt").write_text("one\ntwo\n")
    assert fingerprint(TextLines(str(tmp_path / "lines.txt"))) == fingerprint(
        list(TextLines(str(tmp_path / "lines.txt")))
    )
