"""What a folder of pairs holds, and what shaped it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clvp_train.errors import UserError
from clvp_train.pairs.shards import Shard
from clvp_train.pairs.storage import Storage

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`, written before the first shard, and again when the last one is there."""

    fingerprint: str  # of `settings`
    corpus: str
    source: str  # "ar" or "dvae"
    num_shards: int
    text_vocab_size: int
    speech_vocab_size: int
    tortoise: str  # the folder that the codes were made with
    settings: dict[str, Any] = field(default_factory=dict)  # all that shapes the pairs
    versions: dict[str, str] = field(default_factory=dict)  # of this package and torch
    complete: bool = False
    shards: tuple[Shard, ...] = ()  # in order; empty until complete
    report: dict[str, Any] = field(default_factory=dict)  # see `report.Report`; empty until complete


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Raises UserError if the folder cannot be written to."""
    Storage(folder).write(MANIFEST, (json.dumps(asdict(manifest), indent=2) + "\n").encode())


def read_manifest(folder: str | Path) -> Manifest:
    """Raises UserError if the folder, local or at an fsspec URL, holds no manifest, or a damaged one."""
    storage = Storage(folder)
    try:
        values = json.loads(storage.read(MANIFEST))
        return Manifest(**values | {"shards": tuple(Shard(**shard) for shard in values.get("shards", ()))})
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no {MANIFEST}: give a folder that `python -m clvp_train.generate` wrote"
        ) from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{storage.path(MANIFEST)} is damaged ({error}): restore it, or make the pairs in another folder"
        ) from None


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """The settings that differ, as a user would name them. A digest is named only where no setting of its group tells more."""
    names = [name for name in dict.fromkeys([*there, *here]) if there.get(name) != here.get(name)]
    digests = {"corpus": "the corpus", "tortoise": "Tortoise's weights", "codes.voices": "the clips of codes.voices"}
    told = [f"{name} ({there.get(name)} there, {here.get(name)} now)" for name in names if name not in digests]
    told += [
        words
        for name, words in digests.items()
        if name in names and not (name == "tortoise" and any(other.startswith("tortoise.") for other in names))
    ]
    return told
