"""Writes the folders that are published: a model with its report, or pairs as a data set."""

import shutil
from dataclasses import replace
from pathlib import Path

from clvp_train.errors import UserError
from clvp_train.hub.access import HubConfig
from clvp_train.hub.card import model_card
from clvp_train.hub.run import Trained
from clvp_train.io import README, REPORT, write_text
from clvp_train.io.digests import DIGESTS, recording_digests
from clvp_train.metrics import SCORE_TABLE_FILE
from clvp_train.models.weight_files import public_name
from clvp_train.pairs import (
    MANIFEST,
    TOKENIZER,
    Storage,
    card,
    check_complete,
    copy_tokenizer,
    read_manifest,
    read_shard,
    write_manifest,
)
from clvp_train.report import METRICS_FILE, write_metrics
from clvp_train.tortoise import CLVPProcessor


def write_model_folder(trained: Trained, folder: Path, hub: HubConfig, repo_id: str | None) -> Path:
    """Writes weights (safetensors), config, code, processor, score table, training config, metrics, report and card.

    Args:
        trained: of `find_trained`.
        folder: replaced if it exists.
        hub: licence, language and card template.
        repo_id: the name that the examples of the card load; None: the folder itself.

    Returns:
        `folder`.

    Raises:
        UserError: the card template uses a value that does not exist.
    """
    text = model_card(trained, hub, repo_id)  # first, because it can fail
    shutil.rmtree(folder, ignore_errors=True)
    weights = shutil.ignore_patterns("model*", ".*", "*.partial")  # written below

    def ignored(parent: str, names: list[str]) -> set[str]:
        return weights(parent, names) if Path(parent) == trained.folder else set()

    shutil.copytree(trained.folder, folder, ignore=ignored)
    with recording_digests(folder):
        trained.model.save_pretrained(folder)
        CLVPProcessor.from_pretrained(trained.folder).save_pretrained(folder)  # models of earlier versions have none
        elsewhere = shutil.ignore_patterns(METRICS_FILE, SCORE_TABLE_FILE, DIGESTS)  # in `folder` itself
        shutil.copytree(trained.report, folder / REPORT, ignore=elsewhere)
        write_metrics(trained.metrics, folder)
        write_text(folder / README, text)
    return folder


def write_pairs_folder(pairs: str | Path, folder: Path, hub: HubConfig) -> Path:
    """Copies shards, manifest, tokenizer and card of complete pairs, which `datasets` and `train.py pairs=…` open.

    `skipped.jsonl` is left out, because it may contain paths of this machine. A card that the user has written is kept.

    Args:
        pairs: written by `clvp_train.generate`: a path or any fsspec URL.
        folder: a new folder.
        hub: licence and language of the texts.

    Returns:
        `folder`.

    Raises:
        UserError: the pairs are incomplete or damaged.
    """
    storage, manifest, target = Storage(pairs), read_manifest(pairs), Storage(folder)
    check_complete(storage, manifest)
    try:
        generated = card(manifest)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{storage.path(MANIFEST)}: its report is damaged ({error!r}). Restore the file.") from None
    for shard in manifest.shards:
        target.write(shard.name, read_shard(storage, shard))
    copy_tokenizer(pairs, folder / TOKENIZER)
    public = replace(manifest, tortoise=public_name(manifest.tortoise))  # without a path of this machine
    write_manifest(folder, public)
    written = storage.read(README).decode() if storage.exists(README) else generated
    target.write(README, (written if written != generated else card(public, **hub.metadata)).encode())
    return folder
