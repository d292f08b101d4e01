"""The folder of pairs as it lies on the Hub: a data set that `datasets` opens, and `train.py pairs=…` too."""

import hashlib
from dataclasses import replace
from pathlib import Path

from clvp_train.errors import UserError
from clvp_train.hub.settings import HubConfig
from clvp_train.models.weight_files import public_name
from clvp_train.pairs import (
    CARD,
    TOKENIZER,
    Storage,
    card,
    check_complete,
    copy_tokenizer,
    read_manifest,
    write_manifest,
)


def write_pairs_folder(pairs: str | Path, folder: Path, hub: HubConfig) -> Path:
    """Copies shards, manifest and tokenizer of a finished folder, with a card. `skipped.jsonl` stays behind, as it may name
    files of this machine. A card that the user has written is kept.

    Args:
        pairs: that `codes.generate` wrote, a path or any fsspec URL.
        folder: a new one.
        hub: licence and language of the texts.

    Raises:
        UserError: the pairs are unfinished or damaged.
    """
    storage, manifest, target = Storage(pairs), read_manifest(pairs), Storage(folder)
    check_complete(storage, manifest)
    for shard in manifest.shards:
        data = storage.read(shard.name)
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            raise UserError(f"{storage.path(shard.name)} is damaged: delete it and run the same generate command again")
        target.write(shard.name, data)
    copy_tokenizer(pairs, folder / TOKENIZER)
    public = replace(manifest, tortoise=public_name(manifest.tortoise))
    write_manifest(folder, public)
    written = storage.read(CARD).decode() if storage.exists(CARD) else card(manifest)
    own = written != card(manifest)
    target.write(CARD, (written if own else card(public, hub.license, hub.language)).encode())
    return folder
