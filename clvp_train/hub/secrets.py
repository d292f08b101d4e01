"""A last look before files leave this machine."""

import os
import re
from pathlib import Path

from huggingface_hub import get_token

from clvp_train.errors import UserError

TOKENS = re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b")
NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|(?:API|ACCESS)_?KEY")
SHORTEST = 16  # of a value that is taken for a secret


def refuse_secrets(folder: Path) -> None:
    """Raises UserError if a text in the folder holds the Hub token, another token of the Hub, or what an environment variable
    such as WANDB_API_KEY is set to."""
    values = {"the Hub token": get_token() or ""}
    values |= {f"${name}": value for name, value in os.environ.items() if NAMES.search(name)}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix in (".safetensors", ".parquet"):
            continue
        data = path.read_bytes()
        found = next(
            (name for name, value in values.items() if len(value) >= SHORTEST and value.encode() in data), None
        )
        if found is None and TOKENS.search(data):
            found = "a Hub token"
        if found is not None:
            raise UserError(
                f"{path.relative_to(folder)} holds {found}, and nothing was published: take it out of the settings and logs of "
                "the run, and make a new one"
            )
