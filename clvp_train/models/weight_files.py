"""Finds and reads checkpoint folders: local or from the Hub, safetensors or PyTorch files, sharded or not."""

import os
import pickle
import zipfile
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
from clvp_train.io.digests import is_intact_archive

CONTAINS_CODE = "corrupt, or it contains code, which is not executed"  # torch's own message recommends to execute it
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


def resolve_folder(name_or_path: str | Path, **hub_kwargs: Any) -> Path:
    """Returns a local folder unchanged, or the downloaded snapshot of a Hub id; `hub_kwargs` are `revision`, `token` etc.

    Raises:
        UserError: neither exists, or the Hub cannot be reached.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{path}: a file. Use a checkpoint folder or a Hub id.")
    try:
        # the same weights are often stored in both formats
        folder = Path(snapshot_download(str(name_or_path), ignore_patterns=["*.bin"], **hub_kwargs))
        return folder if any(folder.glob("*.safetensors")) else Path(snapshot_download(str(name_or_path), **hub_kwargs))
    except HFValidationError:
        raise UserError(f"{path}: not a folder. Use an existing folder, or a Hub id such as name/model.") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{name_or_path}: not a local folder, and the Hub returned: {reason}. Check the name and the network."
        ) from None


def public_name(folder: str | Path) -> str:
    """Returns a name of a folder for publication, without local paths: the Hub id of a snapshot, else the folder's name."""
    parts = Path(folder).parts
    cached = next((part for part in parts if part.startswith("models--")), None)
    return "/".join(cached.split("--")[1:]) if cached else Path(folder).name


def weight_files(folder: Path) -> list[Path]:
    """Returns the weight files of a folder: its safetensors files if it has any, else its PyTorch files."""
    for pattern in WEIGHT_FILES:
        files = sorted(folder.glob(pattern))
        if files:
            return files
    raise UserError(f"{folder}: no weights. It must contain model.safetensors or pytorch_model.bin.")


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Returns all tensors of a folder, on the CPU, without executing pickled code."""
    weights: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        weights |= read_state_dict(file)
    return weights


def read_state_dict(file: Path) -> dict[str, torch.Tensor]:
    """Returns all tensors of one file, on the CPU, without executing pickled code.

    Raises:
        UserError: the file is missing, damaged or not a state dict.
    """
    state = read_stored(file)
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise UserError(f"{file}: contains a {type(state).__name__}. Use a file with a state dict (names and tensors).")
    return dict(state)


def read_stored(file: Path) -> Any:
    """Returns the content of a safetensors or PyTorch file, on the CPU, without executing pickled code.

    Raises:
        UserError: the file is missing, damaged or needs code to be executed.
    """
    if not file.is_file():
        raise UserError(f"{file}: not found. Set its path, or copy it there.")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return load_tensors(file)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{file}: corrupt or not a checkpoint ({reason}). Download or save it again.") from None


def load_tensors(file: str | os.PathLike[str]) -> Any:
    """The content of a file of torch.save, on the CPU, without executing pickled code.

    Raises:
        ValueError: the file contains more than tensors and plain values, or a part of it differs from its checksum, which
            torch.load does not compare.
    """
    if zipfile.is_zipfile(file) and not is_intact_archive(Path(file)):  # files before torch 1.6 have no checksums
        raise ValueError("corrupt: a part differs from its checksum")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(CONTAINS_CODE) from None
