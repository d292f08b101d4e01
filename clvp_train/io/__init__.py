"""Files: where the package's own are, the layout of a run folder, atomic writes, locks, and errors of a disk."""

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from clvp_train.errors import UserError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

PACKAGE = Path(__file__).resolve().parents[1]
# in a clone conf/ and data/ are next to the package; a wheel carries them inside
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
DATA = PACKAGE / "bundled" if (PACKAGE / "bundled").is_dir() else PACKAGE.parent / "data"
MODEL, REPORT, CHECKPOINTS = "model", "report", "checkpoints"  # folders in a run folder
README = "README.md"
FINISHED = "finished.json"  # in a run folder: written last
LOCK = ".lock"
_locks: set[IO[str]] = set()  # held by this process
REMEDIES = {  # of errors that are the machine's, not the program's
    errno.ENOSPC: "Free some disk space",
    errno.EDQUOT: "Free some of your disk quota",
    errno.EFBIG: "Raise the limit of file sizes (ulimit -f)",
    errno.EROFS: "Choose a folder that can be written to",
    errno.EACCES: "Check the permissions, or choose another folder",
    errno.EPERM: "Check the permissions, or choose another folder",
    errno.EIO: "Check the disk",
    errno.ESTALE: "Check that the network folder is mounted",
}


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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a folder for this process during the block. The system releases the lock of a process that is killed.

    Raises:
        UserError: another process has locked it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        if not _lock(file):
            file.seek(0)
            raise UserError(
                f"{folder}: {file.read().strip() or 'another process'} is training in this folder. Wait until it ends, or "
                "choose another folder."
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        _locks.add(file)
        try:
            yield
        finally:
            _locks.discard(file)


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Runs the block while no other process of this machine runs such a block for the folder. File systems without locks do
    not hold anyone up."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as file:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _close_locks() -> None:
    """In a forked process, such as a worker of a DataLoader, which would hold the locks of a parent that is killed."""
    for file in _locks:
        file.close()


if fcntl is not None:
    os.register_at_fork(after_in_child=_close_locks)


def is_locked(folder: Path) -> bool:
    """Whether a process has locked the folder."""
    try:
        with (folder / LOCK).open("r+") as file:
            return not _lock(file)
    except OSError:
        return False


def _lock(file: IO[str]) -> bool:
    """Whether the file could be locked until it is closed. File systems without locks count as unlocked."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def disk_error(error: BaseException, folder: Path | None) -> str | None:
    """What is wrong and what to do if a file cannot be written because of the machine: a full disk, a missing permission, a
    folder that has vanished. None for other errors.

    Args:
        error: any; its causes count as well.
        folder: that the command writes to, an absolute path; None: unknown.
    """
    name = getattr(error, "filename", None)
    if folder is not None and isinstance(error, FileNotFoundError) and isinstance(name, str):
        path = Path(name).absolute()
        if path.is_relative_to(folder) and not path.parent.exists():
            return f"{path.parent}: has vanished. Restore the folder"
    # shutil and the writer of safetensors give the number in their message only
    found = re.search(r"\[Errno (\d+)\]|\(os error (\d+)\)", str(error))
    number = getattr(error, "errno", None) or (int(found[1] or found[2]) if found else 0)
    if number in REMEDIES:
        verb = "accessed" if number in (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE) else "written"
        return f"{name or folder or 'a file'}: cannot be {verb} ({os.strerror(number)}). {REMEDIES[number]}"
    return disk_error(error.__cause__, folder) if error.__cause__ is not None else None


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
