"""Speech codes that are read from a file, such as those of recordings that are not at hand."""

import logging
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from clvp_train.corpus import Split, Utterance, text_key
from clvp_train.corpus.tables import require_columns
from clvp_train.errors import UserError
from clvp_train.io.digests import file_digest
from clvp_train.pairs.schema import SCHEMA
from clvp_train.pairs.sources import (
    NOT_STORED,
    UNKNOWN,
    BadRows,
    CodeSource,
    OnCandidate,
    Rows,
    Utterances,
    check_codes,
    has_tokens,
)
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.silence_padding import strip_padding

NEEDED, OPTIONAL = ("text", "speech_ids"), ("voice", "finished", "log_probability")
CODEBOOK = b"codebook"  # in the metadata of a file: `Codebook.digest` of the DVAE that made the codes; optional
log = logging.getLogger(__name__)
REMEDY = "Write a text (string) and speech_ids (a list of integers) in every row."


@dataclass(eq=False)
class StoredCodes(CodeSource):
    """Codes from a Parquet file, matched to the corpus by text. Case, punctuation and spacing do not matter, see
    `corpus.text_key`. All rows of a text are its candidates, in the order of the file.

    Attributes:
        path: a Parquet file with the columns `text` and `speech_ids` (without a stop token) and, optionally, `voice`,
            `finished` and `log_probability`, which mean the same as in `schema.SCHEMA`. If its schema's metadata has the key
            `codebook`, see `tortoise.dvae.Codebook.digest`, the Tortoise must have that codebook.
    """

    path: str
    _: KW_ONLY
    name: ClassVar[str] = "stored"
    needs_audio: ClassVar[bool] = False
    has_quality: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._table, self._digest = pa.table({}), ""
        self._rows_of: dict[str, list[int]] = {}  # by text key

    def check(self, tortoise: FrozenTortoise) -> None:
        file = Path(self.path).expanduser()
        if not file.is_file():
            raise UserError(f"codes.path={self.path}: no such file. Set it to a Parquet file of speech codes.")
        self._table, self._digest, self._rows_of = _read(file), file_digest(file), {}
        codebook = (self._table.schema.metadata or {}).get(CODEBOOK, b"").decode()
        if codebook and (tortoise.dvae is None or tortoise.dvae.codebook.digest() != codebook):
            raise UserError(
                f"codes.path={self.path}: made by another DVAE than that of tortoise={tortoise.source}. Encode the recordings "
                "with this one, or use codes=ar."
            )
        self._table = _without_padding(self._table, tortoise.num_speech_tokens)
        check_codes(f"codes.path={self.path}", pc.list_flatten(self._table["speech_ids"]), tortoise)
        for row, text in enumerate(self._table["text"].to_pylist()):
            self._rows_of.setdefault(text_key(text), []).append(row)

    def inspect(self, tortoise: FrozenTortoise, number: int, utterance: Utterance) -> None:
        if self.bad_rows == "error":
            self._stored_rows(tortoise, utterance, BadRows("error"))

    def noted(self) -> dict[str, Any]:
        return {}

    def settings(self) -> dict[str, Any]:
        return {"codes.path": self._digest}

    def num_rows(self, utterance: Utterance, split: Split) -> int:
        return len(self._rows_of.get(text_key(utterance.text), ()))

    def encode(self, tortoise: FrozenTortoise, utterances: Utterances, bad: BadRows, on_candidate: OnCandidate) -> Rows:
        rows: Rows = []
        numbers: list[int] = []
        for utterance, split in utterances:
            input_ids, stored = self._stored_rows(tortoise, utterance, bad)
            same = {"id": utterance.id, "text": utterance.text, "split": split, "input_ids": input_ids}
            rows += [same | {"candidate": candidate} for candidate in range(len(stored))]
            numbers += stored
        defaults = {"voice": UNKNOWN, "finished": True}
        for row, stored_row in zip(rows, self._table.take(pa.array(numbers, pa.int64())).to_pylist()):
            known = {name: value for name, value in stored_row.items() if value is not None}
            row.update(defaults | known | row)
            on_candidate(len(row["speech_ids"]))
        return rows

    def _stored_rows(self, tortoise: FrozenTortoise, utterance: Utterance, bad: BadRows) -> tuple[list[int], list[int]]:
        """The tokens of a text of any length, and its rows in the table; ([], []) if it has no tokens or no rows."""
        stored = self._rows_of.get(text_key(utterance.text), [])
        if not stored:
            bad.add(utterance.id, NOT_STORED, f"text {utterance.text!r} is not in {self.path}. Add its codes")
            return [], []
        input_ids = tortoise.tokenizer(utterance.text)["input_ids"]
        return (input_ids, stored) if has_tokens(tortoise.tokenizer, input_ids, utterance, bad) else ([], [])


def _read(file: Path) -> pa.Table:
    """The columns of the file that are used, as in `SCHEMA`, without empty rows. Raises UserError."""
    try:
        with pq.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            require_columns(str(file), names, NEEDED, REMEDY)
            columns = [name for name in (*NEEDED, *OPTIONAL) if name in names]
            table = parquet.read(columns).select(columns)
        table = table.cast(pa.schema([SCHEMA.field(name) for name in columns], metadata=table.schema.metadata))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: cannot be read ({' '.join(str(error).split()).rstrip('.')}). {REMEDY}") from None
    codes = table["speech_ids"]
    is_good = pc.and_(table["text"].is_valid(), pc.greater(pc.fill_null(pc.list_value_length(codes), 0), 0))
    good = table.filter(is_good)
    if not len(good) or pc.list_flatten(codes).null_count:
        raise UserError(f"{file}: {'a row has no text or no codes' if table.num_rows else 'no rows'}. {REMEDY}")
    if len(good) < len(table):
        log.warning("%s: %d rows without a text or codes are skipped", file, len(table) - len(good))
    return good


def _without_padding(table: pa.Table, num_codes: int) -> pa.Table:
    """The table without start and stop tokens and padding, see `strip_padding`, if there are ids beyond the codes."""
    codes = table["speech_ids"]
    found = pc.min_max(pc.list_flatten(codes)).as_py()
    if 0 <= found["min"] <= found["max"] < num_codes:
        return table
    stripped = [strip_padding(torch.tensor(ids), num_codes).tolist() for ids in codes.to_pylist()]
    index = table.schema.get_field_index("speech_ids")
    return table.set_column(index, table.schema.field(index), pa.array(stripped, codes.type))
