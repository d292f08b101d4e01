"""Streaming fetches only what is wanted."""

from collections.abc import Iterator

import pytest

from clvp_train.corpus import Corpus, ManifestCorpus, Row
from clvp_train.errors import UserError


class Counted(Corpus):
    """Five recordings; records which are fetched."""

    name = source = "counted"

    def __init__(self) -> None:
        self.fetched: list[int] = []

    def _rows(self) -> Iterator[Row]:
        for number in range(5):
            yield Row(f"row {number}", str(number), f"text {number}", lambda number=number: self._fetch(number))

    def _fetch(self, number: int) -> bytes:
        self.fetched.append(number)
        return bytes([number])


def test_only_wanted_rows_are_fetched():
    corpus = Counted()
    streamed = [(number, utterance.id, utterance.audio) for number, utterance in corpus.stream(lambda n: n in (1, 4))]
    assert streamed == [(1, "1", b"\1"), (4, "4", b"\4")] and corpus.fetched == [1, 4]


def test_without_audio_nothing_is_fetched():
    corpus = Counted()
    assert [(utterance.text, utterance.audio) for _, utterance in corpus.stream(audio=False)] == [
        (f"text {number}", None) for number in range(5)
    ]
    assert corpus.fetched == []


def test_audio_is_fetched_lazily():
    corpus = Counted()
    stream = iter(corpus)
    next(stream)
    assert corpus.fetched == [0]
    assert [number for number, _ in corpus.stream()] == list(range(5)) == [int(item.id) for item in corpus]


def test_without_audio_missing_files_are_still_reported(tmp_path):
    (tmp_path / "m.csv").write_text("audio,text\nmissing.wav,a text\n")
    with pytest.raises(UserError, match="missing.wav does not exist"):
        list(ManifestCorpus(str(tmp_path / "m.csv")).stream(audio=False))
