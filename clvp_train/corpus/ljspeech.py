"""LJSpeech's layout, and what others have written in its columns."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from clvp_train.corpus.base import AUDIO_SUFFIXES, OTHER_AUDIO_SUFFIXES, LocalCorpus, Row, read_lines
from clvp_train.corpus.splits import text_key
from clvp_train.errors import UserError

log = logging.getLogger(__name__)
_NUMBER = re.compile(r"[-+]?[0-9]*[.,:]?[0-9]+(?:e-?[0-9]+)?s?", re.IGNORECASE)


class Columns(NamedTuple):
    """The indices of the fields of a row. Where `text` is empty, `other_text` is read."""

    text: int = -1
    other_text: int = 1
    speaker: int | None = None


@dataclass
class LJSpeech(LocalCorpus):
    """LJSpeech layout: `metadata.csv` (id|raw text|normalised text) and `wavs/<id>.wav`.

    The text is the normalised one, or the raw one where the former is missing. Quotes have no special meaning. If the second
    and third column have no words in common in most rows, they are not two forms of a text: id|speaker|text and id|text|x are
    distinguished by their values, see `columns_of`. Ids may have folders, a suffix, or both, as in `wavs/1.wav`.

    Attributes:
        root: the folder with `metadata.csv` and `wavs/`.
    """

    root: str

    source_files = LocalCorpus._local_files

    def _rows(self) -> Iterator[Row]:
        root, columns = self._existing(), self._columns
        for where, fields in self._fields():
            id_, recording = _locate(root, fields[0])
            speaker = None if columns.speaker is None or len(fields) == 2 else fields[columns.speaker]
            text = fields[columns.text if len(fields) == 3 else 1] or fields[columns.other_text]
            yield Row(where, id_, text, str(recording), speaker)

    def _fields(self) -> Iterator[tuple[str, list[str]]]:
        metadata = self._existing(self._existing() / "metadata.csv")
        for number, line in read_lines(metadata):
            if not line.strip():
                continue
            where = f"{metadata}, line {number}"
            fields = [field.strip() for field in line.split("|")]
            if len(fields) not in (2, 3):
                raise UserError(f"{where}: {len(fields)} fields instead of 2 or 3. Write id|raw text|normalised text.")
            yield where, fields

    @cached_property
    def _columns(self) -> Columns:
        pairs = [(fields[1], fields[2]) for _, fields in self._fields() if len(fields) == 3 and fields[2]]
        columns = columns_of(pairs)
        if columns != Columns():
            layout = ["id", "ignored", "ignored"]
            layout[columns.text] = "text"
            if columns.speaker is not None:
                layout[columns.speaker] = "speaker"
            log.warning("%s: columns 2 and 3 share no words in most rows; reading %s", self.root, "|".join(layout))
        return columns


def columns_of(pairs: Sequence[tuple[str, str]]) -> Columns:
    """What the second and third columns contain, given their values.

    If they share words in at least half of the rows, they are a raw and a normalised text. Otherwise one of them is the text:
    the third if the second contains numbers, or labels, which have fewer different values; else the second. The other one is
    the speaker if it has fewer different values, each in two rows on average, and they are not decimal numbers.
    """
    if 2 * sum(_share_words(second, third) for second, third in pairs) >= len(pairs):
        return Columns()
    values = list(zip(*pairs))
    is_number = [2 * sum(_NUMBER.fullmatch(value) is not None for value in column) > len(column) for column in values]
    distinct = [len(set(column)) for column in values]
    words = [sum(len(value.split()) for value in column) for column in values]
    if is_number[0] != is_number[1]:
        third_is_text = is_number[0]
    elif distinct[0] != distinct[1]:
        third_is_text = distinct[0] < distinct[1]
    else:
        third_is_text = words[0] == len(pairs) < words[1]
    text, other = (2, 1) if third_is_text else (1, 2)
    labels, count = values[other - 1], distinct[other - 1]
    is_decimal = is_number[other - 1] and any("." in label for label in labels)
    is_speaker = count < distinct[text - 1] and 2 * count <= len(pairs) and not is_decimal
    return Columns(text, text, other if is_speaker else None)


def _share_words(first: str, second: str) -> bool:
    """Whether two texts have a word in common, or a letter of a script without spaces between words."""
    keys = text_key(first), text_key(second)
    if not set(keys[0].split()).isdisjoint(keys[1].split()):
        return True
    return any(ord(letter) > 0x2E7F for letter in set(keys[0]) & set(keys[1]))  # from the CJK radicals on


def _locate(root: Path, name: str) -> tuple[str, Path]:
    """The id and the recording of a name: `wavs/<name>.wav`, or where else it is if it is not there."""
    usual = root / "wavs" / f"{name}.wav"
    if not name or usual.is_file():
        return name, usual
    has_suffix = Path(name).suffix.lower() in (*AUDIO_SUFFIXES, *OTHER_AUDIO_SUFFIXES)
    stem = Path(name).with_suffix("").as_posix() if has_suffix else name
    variants = [variant for suffix in AUDIO_SUFFIXES for variant in (suffix, suffix.upper())]
    found = (
        path
        for folder in (root / "wavs", root)
        for path in (folder / name, *(folder / f"{stem}{suffix}" for suffix in variants))
        if path.is_file()
    )
    return stem, next(found, root / "wavs" / f"{stem}.wav")
