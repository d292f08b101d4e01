"""Texts that are there already, as a corpus."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clvp_train.corpus.utterance import Corpus, Row


@dataclass
class Texts(Corpus):
    """One utterance a text, without audio; the id is its number.

    Attributes:
        texts: what is said.
        name: what to call the corpus in reports.
    """

    texts: Sequence[str]
    name: str = "texts"

    @property
    def source(self) -> str:
        return self.name

    def _rows(self) -> Iterator[Row]:
        for number, text in enumerate(self.texts):
            yield Row(f"{self.name}, text {number}", f"{number:06d}", text, None)
