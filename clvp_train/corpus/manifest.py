"""A manifest: one table of audio paths and texts, as CSV, TSV, JSONL or Parquet."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clvp_train.corpus.files import absolute, existing_file
from clvp_train.corpus.tables import (
    Table,
    audio_of,
    csv_rows,
    json_rows,
    parquet_rows,
    tsv_rows,
)
from clvp_train.corpus.utterance import Corpus, Row
from clvp_train.errors import UserError

_NEEDED = ("audio", "text")
_OPTIONAL = ("speaker", "id")
_MEND = "rename the columns to audio, text and, if you have them, speaker and id"


@dataclass
class ManifestCorpus(Corpus):
    """Reads columns `audio` and `text`, and `speaker` and `id` where there are any. Audio paths start from the folder
    of the manifest. In Parquet `audio` may also hold bytes or `{bytes, path}` structs. Without an `id` column the id is
    the audio path from that folder, or the row number for audio that lies elsewhere or in bytes.

    Attributes:
        path: a .csv, .tsv, .jsonl or .parquet file; a .tsv has no quoting.
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
        for number, (where, cells) in enumerate(_table(path), start=1):
            audio = audio_of(where, cells["audio"], path.parent)
            id_ = cells["id"] if "id" in cells else _id_from(audio, path.parent, number)
            yield Row(where, id_, cells["text"], audio, cells.get("speaker"))


def _table(path: Path) -> Table:
    match path.suffix.lower():
        case ".csv":
            return csv_rows(path, _NEEDED, _MEND)
        case ".tsv":
            return tsv_rows(path, _NEEDED, _MEND)
        case ".jsonl":
            return json_rows(path, _NEEDED, _MEND)
        case ".parquet":
            return parquet_rows(path, _NEEDED, _MEND, _OPTIONAL)
    raise UserError(f"manifest {path} has the unknown suffix '{path.suffix}': use .csv, .tsv, .jsonl or .parquet")


def _id_from(audio: object, folder: Path, number: int) -> str:
    if isinstance(audio, str) and Path(audio).is_relative_to(folder):
        return Path(audio).relative_to(folder).as_posix()
    return f"row-{number:06d}"
