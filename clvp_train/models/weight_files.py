"""Finding and reading checkpoint folders: a local folder or a Hub id, safetensors or PyTorch files, whole or in shards."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)
from safetensors.torch import load_file

from clvp_train.errors import UserError

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


def resolve_folder(name_or_path: str | Path, **hub_kwargs: Any) -> Path:
    """A local folder as it is, or the downloaded snapshot of a Hub id; `hub_kwargs` are `revision`, `token` and the like.

    Raises:
        UserError: neither exists, or the Hub cannot be reached.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{path} is a file where a checkpoint folder or a Hub id is needed")
    try:
        return Path(snapshot_download(str(name_or_path), **hub_kwargs))
    except HFValidationError:
        raise UserError(f"there is no folder {path}: give an existing folder, or a Hub id such as name/model") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{name_or_path} is no folder here and could not be fetched from the Hub ({reason}): check the name and the network"
        ) from None


def public_name(folder: str | Path) -> str:
    """What to call a folder where others read it: a Hub id for a snapshot of one, else its last part."""
    parts = Path(folder).parts
    cached = next((part for part in parts if part.startswith("models--")), None)
    return "/".join(cached.split("--")[1:]) if cached else Path(folder).name


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights: its safetensors if there are any, else its PyTorch files."""
    for pattern in WEIGHT_FILES:
        files = sorted(folder.glob(pattern))
        if files:
            return files
    raise UserError(f"{folder} holds no weights: expected model.safetensors or pytorch_model.bin in it")


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, on the CPU, loaded without executing pickled code."""
    weights: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        weights |= read_state_dict(file)
    return weights


def read_state_dict(file: Path) -> dict[str, torch.Tensor]:
    """All tensors of one file, on the CPU, loaded without executing pickled code.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    state = read_stored(file)
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise UserError(
            f"{file} holds no weights but a stored {type(state).__name__}: give a state dict of names and tensors"
        )
    return dict(state)


def read_stored(file: Path) -> Any:
    """What a safetensors or PyTorch file holds, on the CPU, loaded without executing pickled code.

    Raises:
        UserError: the file is missing or damaged, or wants code executed.
    """
    if not file.is_file():
        raise UserError(f"{file} is missing: give its path, or copy it there")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{file} is damaged or no checkpoint ({reason}): fetch or save it again") from None
