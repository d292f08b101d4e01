"""Readers of plain text and of Asterisk's prompts."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from clvp_train.corpus.base import Corpus, LocalCorpus, Row, absolute, read_lines
from clvp_train.errors import UserError

_STAGE_DIRECTION = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")


@dataclass
class TextLines(LocalCorpus):
    """A text file without audio, one sentence per line. Blank lines are skipped, and the id is the line number.

    Attributes:
        path: a UTF-8 text file, plain or .gz.
    """

    path: str
    setting: ClassVar[str] = "path"

    def source_files(self) -> Iterator[str | Path]:
        yield self.location

    def _rows(self) -> Iterator[Row]:
        path = self._existing()
        for number, line in read_lines(path):
            if line.strip():
                yield Row(f"{path}, line {number}", f"{number:06d}", line, None)


@dataclass
class Texts(Corpus):
    """Texts in memory, without audio; the id is the number of the text.

    Attributes:
        texts: the sentences.
        name: the name of the corpus in reports.
    """

    texts: Sequence[str]
    name: str = "texts"

    @property
    def source(self) -> str:
        return self.name

    def _rows(self) -> Iterator[Row]:
        for number, text in enumerate(self.texts):
            yield Row(f"{self.name}, text {number}", f"{number:06d}", text, None)


@dataclass
class Asterisk(LocalCorpus):
    """The telephone prompts of Debian's Asterisk packages: 8 kHz speech of Allison Smith, CC BY-SA 3.0.

    The transcripts are `id: text` lines. Stage directions in brackets are removed; lines without other text (beeps, silence)
    and lines without a wav are skipped.

    Attributes:
        root: the folder of wavs.
        transcripts: the list of prompts, plain or .gz.
        speaker: the name of the voice.
    """

    root: str = "/usr/share/asterisk/sounds/en_US_f_Allison"
    transcripts: str = "/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    speaker: str = "allison"

    def source_files(self) -> Iterator[str | Path]:
        yield absolute(self.transcripts)
        yield from self._local_files()

    @property
    def name(self) -> str:
        return f"Asterisk prompts ({self.location.name})"

    def _rows(self) -> Iterator[Row]:
        root, transcripts = self.location, absolute(self.transcripts)
        for path, setting in ((root, "corpus.root"), (transcripts, "corpus.transcripts")):
            if not path.exists():
                raise UserError(
                    f"{setting}={path}: does not exist. Run `apt-get install asterisk-core-sounds-en "
                    f"asterisk-core-sounds-en-wav` or set {setting}."
                )
        for number, line in read_lines(transcripts):
            if not line.strip() or line.startswith(";"):
                continue
            where = f"{transcripts}, line {number}"
            id_, colon, text = line.partition(":")
            if not colon:
                raise UserError(f"{where}: no colon. Write `id: text`.")
            wav = root / f"{id_.strip()}.wav"
            spoken = _STAGE_DIRECTION.sub(" ", text)
            only_directions = text.strip() and not spoken.strip()
            if wav.is_file() and not only_directions:
                yield Row(where, id_, spoken, str(wav), self.speaker)
