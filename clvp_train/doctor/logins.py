"""Whether the Hub and W&B know who asks. A token is never told, only where it lies."""

import configparser
import netrc
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from clvp_train.doctor.rows import Row, told

SETTINGS = ("HF_HUB_OFFLINE", "HF_ENDPOINT", "WANDB_MODE", "WANDB_BASE_URL")


def logins() -> list[Row]:
    """Rows of both, and of the environment variables that change where and whether they are asked."""
    hub, wandb = _hub(), _wandb()
    rows = [
        Row("Hub", f"a token, from {hub}" if hub else "none, public files only: hf auth login"),
        Row("W&B", f"a key, from {wandb}" if wandb else "none, runs stay offline: wandb login"),
    ]
    return rows + [Row(name, _without_password(os.environ[name])) for name in SETTINGS if name in os.environ]


def _hub() -> str | None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name, "").strip():
            return name
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    file = Path(os.environ.get("HF_TOKEN_PATH") or home / "token").expanduser()
    return told(file) if file.is_file() and file.read_text().strip() else None


def _wandb() -> str | None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        if os.environ.get(name, "").strip():
            return name
    file = next((file for file in _netrc_files() if file.is_file()), None)
    if file is None:
        return None
    try:
        found = netrc.netrc(str(file)).authenticators(_wandb_host())
    except (netrc.NetrcParseError, OSError):  # whose words may hold what must not be told
        return None
    return told(file) if found else None


def _netrc_files() -> list[Path]:
    if os.environ.get("NETRC"):
        return [Path(os.environ["NETRC"]).expanduser()]
    return [Path.home() / ".netrc", Path.home() / "_netrc"]


def _wandb_host() -> str:
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(folder / "settings")
    given = settings.get("default", "base_url", fallback="https://api.wandb.ai")
    return urlsplit(os.environ.get("WANDB_BASE_URL") or given).netloc


def _without_password(address: str) -> str:
    return re.sub(r"//[^/@]*@", "//", address)
