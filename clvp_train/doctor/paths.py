"""Where files lie, how large they are, and what room is left."""

import os
import shutil
from pathlib import Path

from clvp_train.doctor.rows import Row, told
from clvp_train.io import CONF, DATA

GIB = 2**30
LEAST = 1  # GiB; a run of the published size keeps three checkpoints of 2.8


def places() -> list[Row]:
    """Rows of what comes with the package."""
    rows = []
    for name, folder, sign in (("configs", CONF, "train.yaml"), ("bundled data", DATA, "nano/sentences.txt")):
        missing = not (folder / sign).is_file()
        found = f"{told(folder)}{': missing' if missing else ''}"
        rows.append(Row(name, found, "install clvp-train anew" if missing else None))
    return rows


def caches() -> list[Row]:
    """Rows of what grows, with the room left where it lies."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    hugging_face = Path(os.environ.get("HF_HOME") or home / "huggingface")
    folders = {
        "Hub cache": os.environ.get("HF_HUB_CACHE") or hugging_face / "hub",
        "data sets": os.environ.get("HF_DATASETS_CACHE") or hugging_face / "datasets",
        "W&B cache": Path(os.environ.get("WANDB_CACHE_DIR") or home) / "wandb",
        "speech codes": Path("outputs/codes"),
        "runs": Path("outputs"),
    }
    rows = [Row(name, _size(Path(folder).expanduser())) for name, folder in folders.items()]
    return [*rows, _here(Path.cwd())]


def _here(folder: Path) -> Row:
    free = shutil.disk_usage(folder).free / GIB
    if not os.access(folder, os.W_OK):
        return Row("this folder", f"{told(folder)}: cannot be written", "type the commands in a folder of yours")
    mend = None if free >= LEAST else f"make room: checkpoints and speech codes need more than {LEAST} GiB"
    return Row("this folder", f"{told(folder)}, {free:.1f} GiB free", mend)


def _size(folder: Path) -> str:
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    free = f"{shutil.disk_usage(there).free / GIB:.1f} GiB free"
    if there != folder:
        return f"{told(folder)}, not there yet, {free}"
    files = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    return f"{told(folder)}, {sum(file.lstat().st_size for file in files) / GIB:.2f} GiB, {free}"
