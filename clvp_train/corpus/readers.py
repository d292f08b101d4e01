"""Readers of plain text and of common folder layouts."""

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from clvp_train.corpus.base import AUDIO_SUFFIXES, Corpus, LocalCorpus, Row, absolute, read_lines
from clvp_train.errors import UserError

_NOT_TRANSCRIPTS = ("readme", "license", "licence", "copying", "notice")
_STAGE_DIRECTION = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")


@dataclass
class TextLines(LocalCorpus):
    """A text file without audio, one sentence per line. Blank lines are skipped, and the id is the line number.

    Attributes:
        path: a UTF-8 text file, plain or .gz.
    """

    path: str
    setting: ClassVar[str] = "path"

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
class LJSpeech(LocalCorpus):
    """LJSpeech layout: `metadata.csv` (id|raw text|normalised text) and `wavs/<id>.wav`.

    The text is the normalised one, or the raw one where the former is missing. Quotes have no special meaning.

    Attributes:
        root: the folder with `metadata.csv` and `wavs/`.
    """

    root: str

    def _rows(self) -> Iterator[Row]:
        root = self._existing()
        metadata = self._existing(root / "metadata.csv")
        for number, line in read_lines(metadata):
            if not line.strip():
                continue
            where = f"{metadata}, line {number}"
            fields = [field.strip() for field in line.split("|")]
            if len(fields) not in (2, 3):
                raise UserError(f"{where}: {len(fields)} fields instead of 2 or 3. Write id|raw text|normalised text.")
            yield Row(where, fields[0], fields[-1] or fields[1], str(root / "wavs" / f"{fields[0]}.wav"))


@dataclass
class Folder(LocalCorpus):
    """A folder of audio files with transcripts: `a/b.wav` with `a/b.txt`, at any depth, sorted by id.

    The id is the relative path without suffix, and the speaker is the first-level subfolder. Hidden files, READMEs and licences
    are ignored.

    Attributes:
        root: the top folder.
    """

    root: str

    def _rows(self) -> Iterator[Row]:
        root = self._existing()
        audio, transcripts = _scan(root)
        for transcript in sorted(transcripts - {file.with_suffix(".txt") for file in audio}):
            if not transcript.name.lower().startswith(_NOT_TRANSCRIPTS):
                raise UserError(f"{transcript}: no audio file. Add {transcript.stem}.wav or remove the transcript.")
        for id_, file in sorted((_id_from(file, root), file) for file in audio):
            transcript = file.with_suffix(".txt")
            if transcript not in transcripts:
                raise UserError(f"{file}: no transcript. Add {transcript.name} or remove the audio file.")
            text = " ".join(line for _, line in read_lines(transcript))
            yield Row(str(transcript), id_, text, str(file), id_.split("/")[0] if "/" in id_ else None)


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


def _id_from(file: Path, root: Path) -> str:
    return unicodedata.normalize("NFC", file.relative_to(root).with_suffix("").as_posix())


def _scan(root: Path) -> tuple[set[Path], set[Path]]:
    """All audio files and all .txt files below `root`."""
    audio, transcripts = set(), set()
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for file in (Path(folder, name) for name in names if not name.startswith(".")):
            if file.suffix.lower() in AUDIO_SUFFIXES:
                audio.add(file)
            elif file.suffix == ".txt":
                transcripts.add(file)
    return audio, transcripts
