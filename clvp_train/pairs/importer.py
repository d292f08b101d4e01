"""Rows of a table of texts and codes as rows of pairs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from clvp_train.corpus import Split, Utterance, clean_text, split_of, tables, text_key
from clvp_train.errors import UserError
from clvp_train.pairs.codec import Codec, as_array
from clvp_train.pairs.sources import NO_CODES, UNKNOWN, BadRows, Policy, Rows, has_tokens
from clvp_train.tortoise.tokenizer import tokenizer_digest

ALGORITHM = 1  # increment it when equal inputs give other pairs than before
BAD_VALUE, NO_TEXT, NO_REFERENCE = "bad value", "no text", "no reference"  # kinds of skipped rows
SPLITS: dict[str, Split] = {"train": "train", "val": "val", "validation": "val", "valid": "val", "dev": "val"}
SPLITS |= {"test": "test", "eval": "test"}
Match = Literal["text", "voice"]
Numbered = tuple[int, tuple[str, dict[str, Any]]]  # a row: its number from 0, where it is, its cells by column


class BadCell(ValueError):
    """A cell that cannot be read."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class Columns:
    """The names of the columns; None: there is none.

    Attributes:
        codes: a list of integers, or a list of lists for several streams, or a string of numbers; see `Codec`.
        text: of the utterance; None: `input_ids` are decoded.
        input_ids: text tokens; None: those of the tokenizer.
        id: of the utterance; None: the number of the row.
        speaker: a name or a number.
        split: train, validation or test; None: by a hash of the text, see `corpus.split_of`.
        candidate: number of the candidate of its text, for rows that are several candidates of a text.
        finished: whether the sequence ended by itself; None: see `Codec.stop_code`.
        log_probability: of the candidate, the sum over its codes, in nats.
        quality: of the candidate, higher is better.
    """

    codes: str = "codes"
    text: str | None = "text"
    input_ids: str | None = None
    id: str | None = None
    speaker: str | None = None
    split: str | None = None
    candidate: str | None = None
    finished: str | None = None
    log_probability: str | None = None
    quality: str | None = None

    def __post_init__(self) -> None:
        if self.text is None and self.input_ids is None:
            raise UserError("columns.text, columns.input_ids: both null. Set one of them.")

    def wanted(self, optional: Sequence[str] = ()) -> tables.Columns:
        names = dict.fromkeys(name for name in asdict(self).values() if name is not None)
        return tables.Columns(tuple(names), tuple(optional), "Set columns.… to the names of the columns.")


@dataclass(frozen=True)
class Importer:
    """Turns rows of a table into rows of `schema.SCHEMA`.

    Attributes:
        columns, codec: what the rows mean.
        tokenizer: of the texts; of codes, see `code_tokenizer`, if `match` is "voice".
        match: what codes are matched with. "text": the text of their utterance. "voice": a reference, the codes of another
            utterance of their speaker in the same shard, of another text if the table has texts. The speaker then takes the
            place of the text.
        test_percent, val_percent: shares of texts in the test and validation splits, unless there is a column of splits.
        bad_rows: "skip" leaves out and lists what cannot become a pair; "error" stops.
        shard_size: rows per shard; a kill loses at most one shard of work.
    """

    columns: Columns
    codec: Codec
    tokenizer: PreTrainedTokenizerBase
    _: KW_ONLY
    match: Match = "text"
    test_percent: float = 5.0
    val_percent: float = 3.0
    bad_rows: Policy = "skip"
    shard_size: int = 4096
    _spoken: str | None = field(init=False, default=None)  # column of the texts that voices say

    def __post_init__(self) -> None:
        if self.match == "voice" and self.columns.speaker is None:
            raise UserError("columns.speaker=null: match=voice needs speakers. Set it to the name of their column.")
        object.__setattr__(self, "_spoken", self.columns.text if self.match == "voice" else None)
        if self.match == "voice":
            object.__setattr__(self, "columns", replace(self.columns, text=self.columns.speaker, input_ids=None))

    def wanted(self) -> tables.Columns:
        """The columns that are read."""
        return self.columns.wanted([self._spoken] if self._spoken else [])

    def settings(self) -> dict[str, Any]:
        """What determines the pairs besides the table."""
        return {
            "algorithm": ALGORITHM,
            **{f"columns.{name}": value for name, value in asdict(self.columns).items()},
            **{f"codec.{name}": value for name, value in asdict(self.codec).items()},
            "tokenizer": tokenizer_digest(self.tokenizer),
            "shard_size": self.shard_size,
            "split.test_percent": float(self.test_percent),
            "split.val_percent": float(self.val_percent),
            **({"match": self.match} if self.match != "text" else {}),  # folders of earlier versions have none
        }

    def convert(self, numbered: Sequence[Numbered], bad: BadRows) -> Rows:
        """The rows that can become pairs; others are added to `bad`. Raises UserError if it does not skip any."""
        rows = self.read(numbered, bad)
        return self._with_references(rows, bad) if self.match == "voice" else self._with_tokens(rows, bad)

    def read(self, numbered: Sequence[Numbered], bad: BadRows) -> Rows:
        """The rows that can be read, before they are matched."""
        rows = []
        for number, (where, cells) in numbered:
            given = _plain(cells[self.columns.id]) if self.columns.id else None
            id_ = f"row-{number + 1:08d}" if given in (None, "") else str(given)
            try:
                rows.append(self._row(id_, cells))
            except BadCell as error:
                bad.add(id_, error.kind, f"{where}: {error}")
        return rows

    def _with_tokens(self, rows: Rows, bad: BadRows) -> Rows:
        texts = list(dict.fromkeys(row["text"] for row in rows))
        ids_of = {}
        if self.columns.input_ids is None and texts:
            ids_of = dict(zip(texts, self.tokenizer(texts)["input_ids"]))
        good = []
        for row in rows:
            row.setdefault("input_ids", ids_of.get(row["text"]))
            if has_tokens(self.tokenizer, row["input_ids"], Utterance(row["id"], row["text"], None), bad):
                good.append(row)
        return good

    def _with_references(self, rows: Rows, bad: BadRows) -> Rows:
        """Adds to each row the codes of the next row of the same voice that says something else, after the last the first."""
        of_voice, good = defaultdict[str, Rows](list), []
        for row in rows:
            of_voice[row["voice"]].append(row)
        for same in of_voice.values():
            for place, row in enumerate(same):
                others = same[place + 1 :] + same[:place]
                said = row.get("spoken")
                reference = next((other for other in others if said is None or other.get("spoken") != said), None)
                if reference is None:
                    reason = f"no other utterance of {row['voice']!r} in the same shard. Add some, or raise shard_size"
                    bad.add(row["id"], NO_REFERENCE, reason)
                else:
                    row["input_ids"] = reference["speech_ids"]
        for row in rows:
            row.pop("spoken", None)
            good += [row] if "input_ids" in row else []
        return good

    def _row(self, id_: str, cells: dict[str, Any]) -> dict[str, Any]:
        columns = self.columns
        try:
            codes_S, ended = self.codec(cells[columns.codes])
        except (ValueError, TypeError) as error:
            raise BadCell(NO_CODES, f"{columns.codes}: {error}") from None
        row: dict[str, Any] = {"id": id_, "speech_ids": codes_S, "finished": ended, "candidate": 0}
        if columns.input_ids:
            row["input_ids"] = self._ids(cells)
        row["text"], row["split"] = self.text_and_split(cells)
        for name, kind in (("finished", bool), ("candidate", int), ("log_probability", float), ("quality", float)):
            column = getattr(columns, name)
            if column and (value := _plain(cells.get(column))) not in (None, ""):
                row[name] = _number(column, kind, value)
        row["voice"] = self._speaker(cells) or UNKNOWN
        if self._spoken and isinstance(text := _plain(cells.get(self._spoken)), str):
            row["spoken"] = text_key(text)
        return row

    def _speaker(self, cells: dict[str, Any]) -> str:
        """The name, or "" if there is none."""
        speaker = _plain(cells.get(self.columns.speaker)) if self.columns.speaker else None
        return "" if speaker is None else clean_text(str(speaker))

    def text_and_split(self, cells: dict[str, Any]) -> tuple[str, Split]:
        """Raises ValueError if the row has none."""
        text: Any
        if self.match == "voice":
            text = self._speaker(cells)
        elif self.columns.text is None:
            text = self.tokenizer.decode(self._ids(cells).tolist(), skip_special_tokens=True)
        else:
            text = _plain(cells[self.columns.text])
        if not isinstance(text, str) or not (text := clean_text(text)):
            raise BadCell(NO_TEXT, f"{self.columns.text or self.columns.input_ids}: {text!r} is not a text")
        if self.columns.split is None:
            return text, split_of(text, self.test_percent, self.val_percent)
        name = _plain(cells[self.columns.split])
        if name not in SPLITS:
            raise BadCell(BAD_VALUE, f"{self.columns.split}: {name!r} is not one of {', '.join(SPLITS)}")
        return text, SPLITS[name]

    def _ids(self, cells: dict[str, Any]) -> np.ndarray:
        """(T,) text tokens."""
        column, size = self.columns.input_ids, len(self.tokenizer)
        assert column is not None
        try:
            ids_T = as_array(cells[column])
        except (ValueError, TypeError) as error:
            raise BadCell(BAD_VALUE, f"{column}: {str(error).replace('code', 'token')}") from None
        if ids_T.ndim != 1 or not 0 <= ids_T.min() <= ids_T.max() < size:
            raise BadCell(BAD_VALUE, f"{column}: not one list of tokens from 0 to {size - 1}")
        return ids_T


def _plain(cell: Any) -> Any:
    return cell.as_py() if isinstance(cell, pa.Scalar) else cell


def _number(column: str, kind: type, value: Any) -> Any:
    """A cell as bool, int or float."""
    words = {"true": True, "false": False}
    try:
        number = kind(words.get(value.lower(), value) if kind is bool and isinstance(value, str) else value)
    except (ValueError, TypeError, OverflowError):
        number = None
    if number is None or (kind is not bool and not np.isfinite(number)) or (kind is int and not 0 <= number < 2**31):
        raise BadCell(BAD_VALUE, f"{column}: {value!r} is not a value of type {kind.__name__}")
    return number
