"""The base class of corpus readers, which checks a corpus before its first utterance, and reading of text files."""

import gzip
import os.path
import unicodedata
import zlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from clvp_train.errors import UserError

# what libsndfile reads, in order of preference: of recordings that differ in their suffix only, the first is read
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".oga", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64")
# recordings that it does not read (yet): rows of a corpus, which are skipped with the reason where sound is needed
OTHER_AUDIO_SUFFIXES = (".m4a", ".aac", ".mp4", ".wma", ".webm", ".amr")


@dataclass(frozen=True)
class Utterance:
    """A text and its recording.

    Attributes:
        id: unique within the corpus, and the same on every run and machine: a relative path or a row key.
        text: NFC-normalised, whitespace collapsed and stripped; never empty.
        audio: absolute path of an audio file, or the bytes of one; None in text-only corpora.
        speaker: the speaker's name, if known.
    """

    id: str
    text: str
    audio: str | bytes | None
    speaker: str | None = None


class Row(NamedTuple):
    """An unchecked row of a corpus.

    Attributes:
        where: file and line or row, for messages.
        id: as in `Utterance`.
        text: the raw transcript; None counts as empty.
        audio: a path, or a function that fetches the bytes; None in text-only corpora.
        speaker: None or "" where unknown.
    """

    where: str
    id: object
    text: object
    audio: str | Callable[[], bytes] | None
    speaker: object = None


def clean_text(text: str) -> str:
    """The text in NFC, with each run of whitespace replaced by one space and stripped."""
    return " ".join(unicodedata.normalize("NFC", text).split())


class Corpus(ABC):
    """An ordered, repeatable stream of utterances.

    The first iteration checks every row (without decoding audio) before it yields one, so that a bad row in the middle of a
    corpus is reported before any work.

    Raises:
        UserError: on iteration, if the corpus is missing, malformed or empty, an audio file is missing, or an id occurs
            twice.
    """

    _checked: bool = False

    if TYPE_CHECKING:  # a property, or a field as in Hub, which an abstract property would forbid

        @property
        def name(self) -> str:
            """The name of the corpus in reports and folder names."""

    @property
    @abstractmethod
    def source(self) -> str:
        """The file, folder or Hub id of the corpus."""

    @abstractmethod
    def _rows(self) -> Iterator[Row]:
        """The rows in a fixed order."""

    def source_files(self) -> Iterable[str | Path] | None:
        """The files that determine the corpus: what was read of it is reused until the size or modification time of one of them
        changes. None: unknown. Override it in the class that defines `_rows`; it is not inherited."""
        return None

    def skip_check(self) -> None:
        """Makes later iterations trust the rows, which another process or an earlier run has checked."""
        self._checked = True

    def __iter__(self) -> Iterator[Utterance]:
        return (utterance for _, utterance in self.stream())

    def stream(
        self, wanted: Callable[[int], bool] = lambda number: True, audio: bool = True
    ) -> Iterator[tuple[int, Utterance]]:
        """Yields (number from 0, utterance) of the rows for which `wanted(number)` is true.

        Args:
            wanted: audio bytes of other rows are not fetched.
            audio: whether to fetch audio at all; if false, `Utterance.audio` is None.
        """
        if not self._checked:
            self._check()
            self._checked = True
        for number, row in enumerate(self._rows()):
            if wanted(number):
                clip = (row.audio() if callable(row.audio) else row.audio) if audio else None
                yield number, Utterance(_id(row), _text(row), clip, _speaker(row))

    def _check(self) -> None:
        hashes = array("q")  # of the ids: a dict of ids and places would take about 0.5 GB per million rows
        for row in self._rows():
            hashes.append(hash(_id(row)))
            _text(row)
            _speaker(row)
            if isinstance(row.audio, str) and not os.path.isfile(row.audio):
                raise UserError(
                    f"{row.where}: audio file {row.audio} does not exist. Correct its path or remove the row."
                )
        if not hashes:
            raise UserError(f"{self.source}: the corpus has no utterances. Choose another corpus.")
        hashes_N, counts_N = np.unique(np.frombuffer(hashes, dtype=np.int64), return_counts=True)
        if counts_N.max() > 1:
            self._check_repeated({*hashes_N[counts_N > 1].tolist()})

    def _check_repeated(self, hashes: set[int]) -> None:
        """Raises UserError if two ids with one of these hashes are equal."""
        first_seen: dict[str, str] = {}
        for row in self._rows():
            id_ = _id(row)
            if hash(id_) in hashes and first_seen.setdefault(id_, row.where) is not row.where:
                raise UserError(
                    f"{row.where}: duplicate id '{id_}', first used in {first_seen[id_]}. Give every row a unique id or "
                    "remove the duplicate."
                )


class LocalCorpus(Corpus):
    """A corpus in the local folder `self.root` or the local file `self.path`; a subclass defines one of these fields."""

    setting: ClassVar[str] = "root"  # or "path"

    @property
    def location(self) -> Path:
        return absolute(getattr(self, self.setting))

    @property
    def name(self) -> str:
        return self.location.name

    @property
    def source(self) -> str:
        return str(self.location)

    def _local_files(self) -> Iterator[str | Path]:
        """For `source_files`: all files below a folder; or a file, and the recordings that it names."""
        if self.setting == "root":
            for folder, subfolders, names in os.walk(self.location):
                subfolders.sort()
                yield from (os.path.join(folder, name) for name in sorted(names))
        else:
            yield self.location
            yield from (row.audio for row in self._rows() if isinstance(row.audio, str))

    def _existing(self, path: Path | None = None) -> Path:
        """The location, or a file in it. Raises UserError if it does not exist or is of the wrong kind."""
        path = path or self.location
        kind = "folder" if self.setting == "root" and path == self.location else "file"
        if not (path.is_dir() if kind == "folder" else path.is_file()):
            problem = f"not a {kind}" if path.exists() else "does not exist"
            own = "folder" if self.setting == "root" else "file"
            raise UserError(f"{path}: {problem}. Set corpus.{self.setting} to the {own} of the corpus.")
        return path


def absolute(path: str | Path) -> Path:
    """`path` with `~` expanded and made absolute; symbolic links are not resolved."""
    return Path(path).expanduser().absolute()


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden, such as `.DS_Store` or `._*`, or macOS's folder of such files."""
    return name.startswith(".") or name == "__MACOSX"


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line with its "\\n") of a UTF-8 file, plain or .gz; a byte order mark is dropped.

    Raises:
        UserError: the file cannot be read or is not UTF-8; the message gives the byte offset.
    """
    offset = 0
    try:
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"{path}, line {number}: byte {offset + error.start} is not UTF-8. Save the file as UTF-8."
                    ) from None
                offset += len(line)
                text = text.removeprefix("\ufeff") if number == 1 else text
                yield number, text[:-2] + "\n" if text.endswith("\r\n") else text
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}). Replace the file or check its permissions.") from None


def _text(row: Row) -> str:
    text = _string(row, "transcript", row.text)
    if not any(char.isprintable() and char != " " for char in text):
        raise UserError(f"{row.where}: the transcript is empty. Add the text or remove the row.")
    return text


def _id(row: Row) -> str:
    if not (id_ := _string(row, "id", row.id, numbers=True)):
        raise UserError(f"{row.where}: the id is empty. Add an id or remove the id column.")
    return id_


def _speaker(row: Row) -> str | None:
    return _string(row, "speaker", row.speaker, numbers=True) or None


def _string(row: Row, field: str, value: object, numbers: bool = False) -> str:
    if numbers and isinstance(value, int):
        value = str(value)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{row.where}: the {field} is of type {type(value).__name__}. Write it as a string.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{row.where}: the {field} {value!r} is not valid Unicode. Correct or rename it.") from None
    return clean_text(value)
