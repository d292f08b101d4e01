"""The on-disk format of a folder of pairs: Parquet shards and `manifest.json`.

`datasets.load_dataset("FOLDER")` opens them by split, and any other reader of Parquet the single files.
"""

import hashlib
import io
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clvp_train.corpus import Split
from clvp_train.errors import UserError
from clvp_train.io.digests import read_sealed_json, sealed_json
from clvp_train.pairs.storage import Storage

MANIFEST = "manifest.json"
CODES_PER_SECOND = 22_050 / 1024  # of speech, by Tortoise's DVAE
IMPORTED = "imported"  # `Manifest.source` of `import_pairs`
# the files of a shard: one for each split that it has pairs of; "pairs", with all splits, in folders of earlier versions
FILE_NAME = re.compile(r"(pairs|train|val|test)-(\d{5,})-of-\d{5,}\.parquet")
MIXED = "pairs"
SHARD_NAME = re.compile(r"[\w-][\w.-]*\.parquet")  # in the folder itself, not hidden
SCHEMA = pa.schema(
    {
        "id": pa.string(),  # of the utterance
        "text": pa.string(),
        "split": pa.string(),  # train, val or test
        "input_ids": pa.list_(pa.int32()),  # text tokens
        "speech_ids": pa.list_(pa.int32()),  # speech codes, without a stop token
        "voice": pa.string(),
        "candidate": pa.int32(),  # 0 … K - 1
        "finished": pa.bool_(),  # false: the AR reached its maximum number of codes
        "log_probability": pa.float32(),  # in nats, of the codes and the stop under the AR; null for recordings
        "seed": pa.int64(),  # null for recordings
        "quality": pa.float32(),  # by the judge in codes.judge, higher is better; null where nothing was judged
    }
)
ADDED = ("quality",)  # columns that older folders lack, which then are null


@dataclass(frozen=True)
class Shard:
    """A written file, as listed in the manifest."""

    name: str
    rows: int
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        """Raises ValueError if the values cannot be those of a shard: name and digest become parts of paths."""
        is_name, is_digest = SHARD_NAME.fullmatch(self.name), re.fullmatch("[0-9a-f]{64}", self.sha256)
        if not (is_name and is_digest and self.rows >= 0 and self.bytes >= 0):
            raise ValueError(f"not a shard: {self}")


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`, written before the first shard and again after the last one."""

    fingerprint: str  # SHA-256 of `settings`
    corpus: str  # name of the corpus
    source: str  # name of the source of the codes: "ar", "dvae", "stored", …
    num_shards: int  # each with a file for each split that it has pairs of
    text_vocab_size: int
    speech_vocab_size: int
    tortoise: str  # folder or name of the Tortoise that made the codes; "" for codes of another codec
    settings: dict[str, Any] = field(default_factory=dict)  # everything that determines the pairs
    versions: dict[str, str] = field(default_factory=dict)  # of this package and torch
    complete: bool = False
    shards: tuple[Shard, ...] = ()  # in order; empty until complete
    codebook: str = ""  # `Codebook.digest` of the Tortoise's DVAE; "" without one, and in earlier versions
    code_rate: float = CODES_PER_SECOND  # codes per second of speech
    report: dict[str, Any] = field(default_factory=dict)  # see `summary.Tally.report`; empty until complete

    @property
    def matches_voices(self) -> bool:
        """Whether the texts are voices, and the text tokens codes of other utterances, see `importer.Importer.match`."""
        return self.settings.get("match") == "voice"


def shard_name(index: int, count: int, split: str = MIXED) -> str:
    return f"{split}-{index:05d}-of-{count:05d}.parquet"


def shard_index(name: str) -> int | None:
    """The number of the shard that a file belongs to; None for other files."""
    found = FILE_NAME.fullmatch(name)
    return int(found[2]) if found else None


def write_shard(storage: Storage, name: str, rows: list[dict[str, Any]]) -> tuple[Shard, pa.Table]:
    """Writes rows of `SCHEMA` atomically. The same rows give the same bytes. Returns the table as well.

    Raises:
        UserError: the folder is not writable.
    """
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    data = buffer.getvalue()
    storage.write(name, data)
    return Shard(name, table.num_rows, len(data), hashlib.sha256(data).hexdigest()), table


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Raises UserError if the folder is not writable."""
    Storage(folder).write(MANIFEST, (sealed_json(asdict(manifest), indent=2) + "\n").encode())


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a folder, local or at an fsspec URL. Raises UserError if it is missing or damaged."""
    storage = Storage(folder)
    try:
        values = read_sealed_json(storage.read(MANIFEST))
        manifest = Manifest(**values | {"shards": tuple(Shard(**shard) for shard in values.get("shards", ()))})
        for name, hint in get_type_hints(Manifest).items():
            if not isinstance(getattr(manifest, name), get_origin(hint) or hint):
                raise TypeError(f"{name} is {getattr(manifest, name)!r}")
        return manifest
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder}: contains no {MANIFEST}. Choose a folder written by `python -m clvp_train.generate`, "
            "or add codec=… to train on a table of texts and codes."
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{storage.path(MANIFEST)}: damaged ({error}). Restore it or generate the pairs in another folder."
        ) from None


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The settings that differ, by the names that a user types. A digest is listed only if no setting explains it."""
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    digests = {"corpus": "the corpus", "tortoise": "Tortoise's weights"}
    digests |= {"codes.voices": "the clips of codes.voices", "codes.path": "the file of codes.path"}
    digests |= {"codes.judge.recordings": "the recordings of codes.judge"}
    digests |= {"source": "the rows of source.name", "tokenizer": "the tokenizer"}
    differing = [
        f"{name} ({old.get(name)} in the folder, {new.get(name)} now)" for name in names if name not in digests
    ]
    differing += [
        words
        for name, words in digests.items()
        if name in names and not (name == "tortoise" and any(other.startswith("tortoise.") for other in names))
    ]
    return differing


def check_rows(table: pa.Table, first_row: int, manifest: Manifest, name: str) -> None:
    """Checks that rows of `SCHEMA` can be trained on.

    Args:
        table: some rows of a shard.
        first_row: the number of the first of them in the shard.
        manifest: knows the vocabularies.
        name: of the shard, for the message.

    Raises:
        UserError: a text, id or split is missing, or ids are missing or outside of the vocabulary; the message names the row.
    """
    sizes = {"input_ids": manifest.text_vocab_size, "speech_ids": manifest.speech_vocab_size}
    wrong = {f"{column} is null": pc.is_null(table[column]) for column in ("id", "text", *sizes)}
    wrong["split is not train, val or test"] = pc.invert(pc.is_in(table["split"], pa.array(get_args(Split))))
    wrong |= {f"{column} is empty": pc.equal(pc.list_value_length(table[column]), 0) for column in sizes}
    for problem, is_wrong in wrong.items():
        if pc.any(is_wrong).as_py():
            raise _bad_row(name, first_row + pc.index(is_wrong, True).as_py(), problem)
    for column, size in sizes.items():
        lists = table[column].combine_chunks()
        ids = pc.list_flatten(lists)
        low, high = pc.min_max(ids).values()
        if ids.null_count or (len(ids) and not 0 <= low.as_py() <= high.as_py() < size):
            is_outside = pc.or_kleene(pc.is_null(ids), pc.or_kleene(pc.less(ids, 0), pc.greater_equal(ids, size)))
            first = pc.index(is_outside, True).as_py()
            row = pc.list_parent_indices(lists)[first].as_py()
            raise _bad_row(name, first_row + row, f"{column} contains {ids[first]}, but ids are 0 to {size - 1}")


def _bad_row(name: str, row: int, problem: str) -> UserError:
    return UserError(f"{name}, row {row}: {problem}. Correct the source of the pairs and generate them again.")
