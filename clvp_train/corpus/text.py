"""Plain text, one sentence a line, no audio."""

from collections.abc import Iterator
from dataclasses import dataclass

from clvp_train.corpus.files import absolute, existing_file, read_lines
from clvp_train.corpus.utterance import Corpus, Row


@dataclass
class TextLines(Corpus):
    """One sentence a line; blank lines are skipped, and the id is the line number.

    Attributes:
        path: a UTF-8 text file, plain or .gz.
    """

    path: str

    @property
    def name(self) -> str:
        return absolute(self.path).name

    @property
    def source(self) -> str:
        return str(absolute(self.path))

    def _rows(self) -> Iterator[Row]:
        path = existing_file(self.path, "corpus.path")
        for number, line in read_lines(path):
            if line.strip():
                yield Row(f"{path}, line {number}", f"{number:06d}", line, None)
