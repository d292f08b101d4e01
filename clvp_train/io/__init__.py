"""Files: where the package's own are, the layout of a run folder, and atomic writes."""

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# in a clone conf/ and data/ are next to the package; a wheel carries them inside
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
DATA = PACKAGE / "bundled" if (PACKAGE / "bundled").is_dir() else PACKAGE.parent / "data"
MODEL, REPORT, CHECKPOINTS = "model", "report", "checkpoints"  # folders in a run folder


def partial_name(name: str) -> str:
    """The temporary name under which this process writes the file `name`: hidden, so that no reader of the folder opens it."""
    return f".{name}.{_host()}-{os.getpid()}.partial"


def is_abandoned(name: str) -> bool:
    """Whether `name` is a `partial_name` whose writer no longer runs. Only processes of this machine can be checked: the
    files of other machines never count as abandoned."""
    host, _, process = name.removesuffix(".partial").rsplit(".", 1)[-1].rpartition("-")
    is_partial = name.startswith(".") and name.endswith(".partial") and host == _host() and process.isdecimal()
    return is_partial and not _runs(int(process))


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`; when the block ends without an error, its file replaces `path`.

    The data is flushed to disk before the rename, so that neither a kill nor a power cut leaves a partial file in its place.
    What a kill leaves behind has a `partial_name`.

    Args:
        path: the final file. Its folder is created.

    Raises:
        OSError: the file cannot be written; a previous file is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(partial_name(path.name))
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Writes a UTF-8 text file atomically and returns its path."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _host() -> str:
    return socket.gethostname().replace(".", "_").replace("/", "_")


def _runs(process: int) -> bool:
    if process == os.getpid():  # checked before this process writes: an earlier process had the same number
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process belongs to another user
        return True
    return True
