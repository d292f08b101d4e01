"""A corpus as a stream of which only a part is fetched."""

from collections.abc import Iterator

import pytest

from clvp_train.corpus import Corpus, Row


class Counted(Corpus):
    """Five recordings that count how often they are fetched."""

    name = source = "counted"

    def __init__(self) -> None:
        self.fetched: list[int] = []

    def _rows(self) -> Iterator[Row]:
        for number in range(5):
            yield Row(f"row {number}", str(number), f"text {number}", lambda number=number: self._fetch(number))

    def _fetch(self, number: int) -> bytes:
        self.fetched.append(number)
        return bytes([number])


def test_only_what_is_wanted_is_fetched():
    corpus = Counted()
    streamed = [(number, utterance.id, utterance.audio) for number, utterance in corpus.stream(lambda n: n in (1, 4))]
    assert streamed == [(1, "1", b"\1"), (4, "4", b"\4")] and corpus.fetched == [1, 4]


def test_without_audio_nothing_is_fetched():
    corpus = Counted()
    assert [(utterance.text, utterance.audio) for _, utterance in corpus.stream(audio=False)] == [
        (f"text {number}", None) for number in range(5)
    ]
    assert corpus.fetched == []


def test_it_is_fetched_only_when_its_turn_comes():
    corpus = Counted()
    stream = iter(corpus)
    next(stream)
    assert corpus.fetched == [0]
    assert [number for number, _ in corpus.stream()] == list(range(5)) == [int(one.id) for one in corpus]


def test_without_audio_files_are_still_looked_for(tmp_path):
    from clvp_train.corpus import ManifestCorpus
    from clvp_train.errors import UserError

    (tmp_path / "m.csv").write_text("audio,text\nmissing.wav,a text\n")
    with pytest.raises(UserError, match="missing.wav is missing"):
        list(ManifestCorpus(str(tmp_path / "m.csv")).stream(audio=False))
