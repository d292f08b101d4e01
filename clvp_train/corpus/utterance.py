"""What every reader yields, and the checks that every corpus passes before its first utterance comes out."""

import os.path
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from clvp_train.errors import UserError


@dataclass(frozen=True)
class Utterance:
    """One text and the recording that says it.

    Attributes:
        id: unique within the corpus, and the same on every run and machine: a relative path or a row key.
        text: NFC-normalised, whitespace collapsed and stripped; never empty.
        audio: absolute path of an audio file, or the bytes of one; None in text-only corpora.
        speaker: who speaks, where the corpus says so.
    """

    id: str
    text: str
    audio: str | bytes | None
    speaker: str | None = None


class Row(NamedTuple):
    """One unchecked row, as a reader finds it.

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
    """NFC, every run of whitespace one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


class Corpus(ABC):
    """An ordered, repeatable stream of utterances. The first iteration checks every row (but decodes no audio) before
    it yields one, so that a bad row in the middle of a corpus costs no work.

    Raises:
        UserError: on iteration, if the corpus is missing, malformed or empty, an audio file is missing, or an id occurs
            twice.
    """

    _checked: bool = False

    if TYPE_CHECKING:  # a property, or a field as in Hub, which an abstract property would forbid

        @property
        def name(self) -> str:
            """What to call the corpus in reports."""

    @property
    @abstractmethod
    def source(self) -> str:
        """The file, folder or Hub id it is read from."""

    @abstractmethod
    def _rows(self) -> Iterator[Row]:
        """The rows in a fixed order."""

    def __iter__(self) -> Iterator[Utterance]:
        return (utterance for _, utterance in self.stream())

    def stream(
        self, wanted: Callable[[int], bool] = lambda number: True, audio: bool = True
    ) -> Iterator[tuple[int, Utterance]]:
        """Yields (number from 0, utterance) of those `wanted`; audio bytes of the others are never fetched. With audio=False
        none are, and `Utterance.audio` is None."""
        if not self._checked:
            self._check()
            self._checked = True
        for number, row in enumerate(self._rows()):
            if wanted(number):
                sound = (row.audio() if callable(row.audio) else row.audio) if audio else None
                yield number, Utterance(_id(row), _text(row), sound, _speaker(row))

    def _check(self) -> None:
        first_seen: dict[str, str] = {}
        for row in self._rows():
            id_ = _id(row)
            _text(row)
            _speaker(row)
            if id_ in first_seen:
                raise UserError(
                    f"{row.where}: id '{id_}' is taken already ({first_seen[id_]}): give every row its own id, or "
                    "remove the double"
                )
            first_seen[id_] = row.where
            if isinstance(row.audio, str) and not os.path.isfile(row.audio):
                raise UserError(f"{row.where}: audio file {row.audio} is missing: mend its path, or remove the row")
        if not first_seen:
            raise UserError(f"corpus {self.source} holds no utterances: point it at a corpus that has some")


def _text(row: Row) -> str:
    text = _string(row, "transcript", row.text)
    if not any(char.isprintable() and char != " " for char in text):
        raise UserError(f"{row.where}: the transcript is empty: write it, or remove the row")
    return text


def _id(row: Row) -> str:
    if not (id_ := _string(row, "id", row.id, numbers=True)):
        raise UserError(f"{row.where}: the id is empty: write it, or leave the whole id column out")
    return id_


def _speaker(row: Row) -> str | None:
    return _string(row, "speaker", row.speaker, numbers=True) or None


def _string(row: Row, field: str, value: object, numbers: bool = False) -> str:
    if numbers and isinstance(value, int):
        value = str(value)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{row.where}: the {field} is a {type(value).__name__}, not a string: write it as a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{row.where}: the {field} {value!r} is not valid Unicode: mend or rename it") from None
    return clean_text(value)
