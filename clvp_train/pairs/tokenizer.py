"""The tokenizer that made the text tokens, kept beside the pairs for the model that will be trained on them."""

import tempfile
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from clvp_train.errors import UserError
from clvp_train.pairs.storage import Storage
from clvp_train.tortoise.tokenizer import read_saved_tokenizer

TOKENIZER = "tokenizer"  # subfolder


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, storage: Storage) -> None:
    """Raises UserError if the folder of pairs cannot be written to."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for file in sorted(Path(folder).iterdir()):
            storage.write(f"{TOKENIZER}/{file.name}", file.read_bytes())


def copy_tokenizer(folder: str | Path, target: Path) -> None:
    """Copies the tokenizer of a folder of pairs, local or at an fsspec URL, into a local folder.

    Raises:
        UserError: there is none, or the target cannot be written to.
    """
    storage, copy = Storage(folder), Storage(target)
    names = storage.sizes(TOKENIZER)
    if not names:
        raise UserError(f"{storage.path(TOKENIZER)} is missing: copy it from the Tortoise that made the pairs")
    for name in names:
        copy.write(name, storage.read(f"{TOKENIZER}/{name}"))


def open_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder of pairs. Raises UserError if there is none."""
    with tempfile.TemporaryDirectory() as scratch:
        copy_tokenizer(folder, Path(scratch))
        return read_saved_tokenizer(Path(scratch))
