"""Data sets of the Hugging Face Hub, and local ones that `datasets` opens."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from clvp_train.corpus.base import Corpus, Row, absolute
from clvp_train.corpus.tables import ARROW_BATCH_ROWS, arrow_rows, audio_of, require_columns
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

    @property
    def source(self) -> str:
        return f"{self.name} (split {self.split})"

    def _rows(self) -> Iterator[Row]:
        wanted = [self.text_column, self.audio_column, self.speaker_column, self.id_column]
        columns = list(dict.fromkeys(column for column in wanted if column))
        remedy = "Set corpus.text_column, corpus.audio_column, corpus.speaker_column and corpus.id_column."
        require_columns(f"data set {self.source}", self._dataset.column_names, columns, remedy)
        # the arrow format returns {bytes, path} as stored for any feature type, so that torchcodec is never called
        batches = self._dataset.select_columns(columns).with_format("arrow").iter(ARROW_BATCH_ROWS)
        folder = self._folder
        for number, (where, cells) in enumerate(arrow_rows(f"data set {self.source}", batches)):
            audio = audio_of(where, cells[self.audio_column], folder) if self.audio_column else None
            id_ = cells[self.id_column] if self.id_column else f"{self.split}/{number:06d}"
            yield Row(where, id_, cells[self.text_column], audio, cells.get(self.speaker_column or ""))

    @property
    def _folder(self) -> Path | None:
        folder = absolute(self.name)
        if folder.is_dir():
            return folder
        if folder.exists() or self.name.startswith(("/", "./", "../", "~")):
            raise UserError(
                f"corpus.name={folder}: {'not a folder' if folder.exists() else 'does not exist'}. Set corpus.name to a folder "
                "or a Hub id, or read a single file with corpus=manifest."
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
                    "Set corpus.revision=refs/convert/parquet to read the Hub's Parquet copy, or read local files with "
                    "corpus=manifest"
                )
            else:
                remedy = (
                    "Check corpus.name, corpus.config, corpus.split, corpus.revision and the network; for a private data "
                    "set run `hf auth login`"
                )
            raise UserError(f"data set {self.source}: cannot be loaded ({reason}). {remedy}.") from error
        if isinstance(loaded, datasets.DatasetDict):
            if self.split not in loaded:
                raise UserError(
                    f"data set {self.name}: no split '{self.split}'. Set corpus.split to one of {', '.join(loaded)}."
                )
            loaded = loaded[self.split]
        return loaded
