"""The machine: devices, paths with their free space, and logins."""

import configparser
import netrc
import os
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from clvp_train.doctor.loading import Loaded
from clvp_train.doctor.rows import GIB, Finding, short_path
from clvp_train.io import CONF, DATA

MIN_FREE = 1  # GiB; a run of the published size keeps three checkpoints of 2.8
ENVIRONMENT_VARIABLES = ("HF_HUB_OFFLINE", "HF_ENDPOINT", "WANDB_MODE", "WANDB_BASE_URL")


def devices(loaded: Loaded) -> list[Finding]:
    """Rows of CPU, GPUs, NCCL and MPS.

    Args:
        loaded: of `loading.DEVICES`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    machine = f"{cores} cores, {memory:.0f} GiB of memory"
    if loaded.error is not None:
        return [Finding("CPU", machine), Finding("others", "unknown, because torch cannot be imported")]
    report = loaded.report
    rows = [Finding("CPU", f"{machine}, {'native' if report['bfloat16'] else 'no native'} bfloat16")]
    rows += [Finding(f"cuda:{number}", gpu) for number, gpu in enumerate(report["gpus"])]
    if not report["gpus"]:
        rows.append(Finding("CUDA", f"none{_why_no_gpu(report['cuda'])}"))
    rows.append(Finding("NCCL", report["nccl"] or "none, because there is no GPU"))
    rows.append(Finding("MPS", "available" if report["mps"] else "none"))
    return rows


def _why_no_gpu(cuda_version: str | None) -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    if cuda_version is None:
        return ": there is an NVIDIA driver, but this torch is built without CUDA"
    return f": the NVIDIA driver does not support this torch, which is built for CUDA {cuda_version}"


def paths() -> list[Finding]:
    """Rows of the files that come with the package."""
    rows = []
    for name, folder, file in (("configs", CONF, "train.yaml"), ("bundled data", DATA, "nano/sentences.txt")):
        missing = not (folder / file).is_file()
        result = f"{short_path(folder)}{': missing' if missing else ''}"
        rows.append(Finding(name, result, "reinstall clvp-train" if missing else None))
    return rows


def caches() -> list[Finding]:
    """Rows of the folders that grow, with their size and the free space, and of the current folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    hugging_face = Path(os.environ.get("HF_HOME") or home / "huggingface")
    folders = {
        "Hub cache": os.environ.get("HF_HUB_CACHE") or hugging_face / "hub",
        "data sets": os.environ.get("HF_DATASETS_CACHE") or hugging_face / "datasets",
        "W&B cache": Path(os.environ.get("WANDB_CACHE_DIR") or home) / "wandb",
        "speech codes": Path("outputs/codes"),
        "runs": Path("outputs"),
    }
    rows = [Finding(name, _size(Path(folder).expanduser())) for name, folder in folders.items()]
    return [*rows, _current_folder(Path.cwd())]


def _current_folder(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / GIB
    if not os.access(folder, os.W_OK):
        return Finding(
            "this folder", f"{short_path(folder)}: not writable", "run the commands in a folder that is writable"
        )
    fix = None if free >= MIN_FREE else f"free disk space: checkpoints and speech codes need more than {MIN_FREE} GiB"
    return Finding("this folder", f"{short_path(folder)}, {free:.1f} GiB free", fix)


def _size(folder: Path) -> str:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = f"{shutil.disk_usage(existing).free / GIB:.1f} GiB free"
    if existing != folder:
        return f"{short_path(folder)}, does not exist yet, {free}"
    files = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    return f"{short_path(folder)}, {sum(file.lstat().st_size for file in files) / GIB:.2f} GiB, {free}"


def logins() -> list[Finding]:
    """Rows of the Hub, of W&B, and of environment variables that change their address or forbid the network.

    A token is never printed, only where it was found.
    """
    hub, wandb = _hub_token(), _wandb_key()
    rows = [
        Finding("Hub", f"token from {hub}" if hub else "none, public files only. Log in with: hf auth login"),
        Finding("W&B", f"key from {wandb}" if wandb else "none, runs stay offline. Log in with: wandb login"),
    ]
    without_password = {
        name: re.sub(r"//[^/@]*@", "//", os.environ[name]) for name in ENVIRONMENT_VARIABLES if name in os.environ
    }
    return rows + [Finding(name, value) for name, value in without_password.items()]


def _hub_token() -> str | None:
    """Where the token of the Hub was found."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name, "").strip():
            return name
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    file = Path(os.environ.get("HF_TOKEN_PATH") or home / "token").expanduser()
    return short_path(file) if file.is_file() and file.read_text().strip() else None


def _wandb_key() -> str | None:
    """Where the key of W&B was found."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        if os.environ.get(name, "").strip():
            return name
    given = os.environ.get("NETRC")
    candidates = [Path(given).expanduser()] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]
    file = next((file for file in candidates if file.is_file()), None)
    if file is None:
        return None
    try:
        return short_path(file) if netrc.netrc(str(file)).authenticators(_wandb_host()) else None
    except (netrc.NetrcParseError, OSError):  # its message may contain a password
        return None


def _wandb_host() -> str:
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(folder / "settings")
    configured = settings.get("default", "base_url", fallback="https://api.wandb.ai")
    return urlsplit(os.environ.get("WANDB_BASE_URL") or configured).netloc
