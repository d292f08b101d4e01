"""Data sets of the Hugging Face Hub, and local ones that `datasets` opens."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from clvp_train.corpus.base import Corpus, Row, absolute
from clvp_train.corpus.tables import ARROW_BATCH_ROWS, Columns, TableRows, arrow_rows, audio_of, require_columns
from clvp_train.errors import UserError

if TYPE_CHECKING:
    import datasets


@dataclass
class Hub(Corpus):
    """A Hub data set, a folder written by `save_to_disk`, or a folder of files that `load_dataset` supports.

    Audio is returned as stored, without decoding, so that neither torchcodec nor FFmpeg is needed. Only the "audiofolder"
    format of `datasets` (loose audio files) requires torchcodec: read such files with `ManifestCorpus`, or use the Hub's
    revision `refs/convert/parquet`.

    Attributes:
        name: a Hub id such as `user/corpus`, or the path of a local folder.
        split: the split to read; slices such as `train[:1%]` too, but not of a `save_to_disk` folder.
        config: the data set's configuration (subset); None for its default.
        text_column: column of transcripts.
        audio_column: column of audio, or None for a text-only corpus.
        speaker_column: column of speakers, if any.
        id_column: column of unique ids; None builds ids of split and row number.
        revision: Hub commit, tag or branch; None for the latest.
    """

    name: str
    split: str = "train"
    config: str | None = None
    text_column: str = "text"
    audio_column: str | None = "audio"
    speaker_column: str | None = None
    id_column: str | None = None
    revision: str | None = None
    group: ClassVar[str] = "corpus"  # of these settings, in messages
    files: ClassVar[str] = "with corpus=manifest"  # how loose files are read instead

    @property
    def source(self) -> str:
        return f"{self.name} (split {self.split})"

    def _rows(self) -> Iterator[Row]:
        wanted = [self.text_column, self.audio_column, self.speaker_column, self.id_column]
        remedy = "Set corpus.text_column, corpus.audio_column, corpus.speaker_column and corpus.id_column."
        rows = self.rows(Columns(tuple(dict.fromkeys(column for column in wanted if column)), (), remedy))
        folder = self._folder
        for number, (where, cells) in enumerate(rows):
            audio = audio_of(where, cells[self.audio_column], folder) if self.audio_column else None
            id_ = cells[self.id_column] if self.id_column else f"{self.split}/{number:06d}"
            yield Row(where, id_, cells[self.text_column], audio, cells.get(self.speaker_column or ""))

    def source_files(self) -> list[str] | None:
        return [file["filename"] for file in self._dataset.cache_files] or None  # none: in memory

    @property
    def num_rows(self) -> int:
        return len(self._dataset)

    def rows(self, columns: Columns) -> TableRows:
        """The rows of any columns. Raises UserError if a needed one is missing."""
        names = self._dataset.column_names
        require_columns(f"data set {self.source}", names, columns.needed, columns.remedy)
        present = [*columns.needed, *(name for name in columns.optional if name in names)]
        # the arrow format returns {bytes, path} as stored for any feature type, so that torchcodec is never called
        batches = self._dataset.select_columns(present).with_format("arrow").iter(ARROW_BATCH_ROWS)
        return arrow_rows(f"data set {self.source}", batches)

    def serialized(self, columns: Columns) -> Iterator[bytes]:
        """The contents of these columns, for a digest."""
        table = self._dataset.select_columns([*columns.needed]).with_format("arrow")
        for part in table.iter(ARROW_BATCH_ROWS):
            yield from (batch.serialize().to_pybytes() for batch in part.to_batches())

    @property
    def _folder(self) -> Path | None:
        folder = absolute(self.name)
        if folder.is_dir():
            return folder
        if folder.exists() or self.name.startswith(("/", "./", "../", "~")):
            raise UserError(
                f"{self.group}.name={folder}: {'not a folder' if folder.exists() else 'does not exist'}. Set "
                f"{self.group}.name to a folder or a Hub id, or read a single file {self.files}."
            )
        return None

    @cached_property
    def _dataset(self) -> "datasets.Dataset":
        import datasets

        folder = self._folder
        try:
            if folder and any((folder / name).exists() for name in ("state.json", "dataset_dict.json")):
                loaded = datasets.load_from_disk(str(folder))
            else:
                loaded = datasets.load_dataset(
                    str(folder or self.name), self.config, split=self.split, revision=self.revision
                )
        except Exception as error:  # from OSError to httpx errors, all about this data set
            cause = error.__cause__ or error
            reason = " ".join(str(cause).split()).rstrip(".") or type(cause).__name__
            if isinstance(cause, ImportError):
                remedy = (
                    f"Set {self.group}.revision=refs/convert/parquet to read the Hub's Parquet copy, or read local files "
                    f"{self.files}"
                )
            else:
                remedy = (
                    f"Check {self.group}.name, {self.group}.config, {self.group}.split, {self.group}.revision and the "
                    "network; for a private data set run `hf auth login`"
                )
            raise UserError(f"data set {self.source}: cannot be loaded ({reason}). {remedy}.") from error
        if isinstance(loaded, datasets.DatasetDict):
            if self.split not in loaded:
                raise UserError(
                    f"data set {self.name}: no split '{self.split}'. Set {self.group}.split to one of {', '.join(loaded)}."
                )
            loaded = loaded[self.split]
        return loaded
