import pytest

from clvp_train.corpus import text_key
from clvp_train.errors import UserError
from clvp_train.evaluation import check_recognizer
from clvp_train.evaluation.asr import word_errors


@pytest.mark.parametrize(
    ("transcript", "text", "expected"),
    [
        ("In the beginning, was the word!", "in the beginning was the Word.", 0),
        ("in the beginning the word", "in the beginning was the word", 1),
        ("in a beginning was the the word", "in the beginning was the word", 2),
        ("", "two words", 2),
        ("...", "two words", 2),
        ("我们走", "我们走吧", 1),
        ("我 们 走 吧", "我们走吧", 0),
        ("word", "word", 0),
    ],
)
def test_word_errors_ignore_case_and_punctuation(transcript, text, expected):
    assert word_errors(transcript, text_key(text)) == expected


@pytest.mark.parametrize("name", ["nowhere/at/all", "data"])
def test_a_missing_model_is_reported(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=f"rerank.asr={name}: cannot be opened"):
        check_recognizer(name)
