"""Tables of texts and codes: files, folders of files, and data sets of the Hugging Face Hub."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from clvp_train.corpus import Hub
from clvp_train.corpus.tables import Columns, TableRows, count_rows, read_table
from clvp_train.errors import UserError
from clvp_train.io.digests import file_digest

SUFFIXES = (".parquet", ".jsonl", ".csv", ".tsv")


class _Dataset(Hub):
    group: ClassVar[str] = "source"
    files: ClassVar[str] = "with source.name=FILE"


@dataclass(frozen=True)
class CodeTable:
    """Rows with texts and codes.

    Attributes:
        name: a .parquet, .jsonl, .csv or .tsv file, a folder of them, a data set of the Hub, or a local folder of one.
        split, config, revision: of a data set, as in `corpus.Hub`.
    """

    name: str
    split: str = "train"
    config: str | None = None
    revision: str | None = None

    @property
    def short_name(self) -> str:
        return self.name if self._dataset is not None and not Path(self.name).exists() else Path(self.name).stem

    @cached_property
    def _files(self) -> list[Path]:
        path = Path(self.name).expanduser()
        if path.is_file():
            if path.suffix.lower() not in SUFFIXES:
                raise UserError(f"source.name={self.name}: unknown suffix. Use {', '.join(SUFFIXES)}.")
            return [path]
        files = sorted(path.iterdir()) if path.is_dir() else []
        return [file for file in files if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]

    @cached_property
    def _dataset(self) -> _Dataset | None:
        if self._files:
            return None
        return _Dataset(self.name, self.split, self.config, revision=self.revision)

    def num_rows(self, columns: Columns) -> int:
        """Raises UserError if the table cannot be read, or a needed column is missing."""
        if self._dataset is not None:
            self._dataset.rows(columns)
            return self._dataset.num_rows
        return sum(count_rows(file, columns) for file in self._files)

    def rows(self, columns: Columns) -> TableRows:
        """Raises UserError as `num_rows` does."""
        return self._dataset.rows(columns) if self._dataset is not None else self._file_rows(columns)

    def _file_rows(self, columns: Columns) -> TableRows:
        for file in self._files:
            yield from read_table(file, columns)

    def digest(self, columns: Columns) -> str:
        """SHA-256 of the files, or of the columns of a data set."""
        digest = hashlib.sha256()
        for part in self._parts(columns):
            digest.update(part)
        return digest.hexdigest()

    def _parts(self, columns: Columns) -> Iterator[bytes]:
        if self._dataset is None:
            yield from (file_digest(file).encode() for file in self._files)
        else:
            yield from self._dataset.serialized(columns)
