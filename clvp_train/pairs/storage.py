"""Where pairs lie: a folder, local or at any fsspec URL, whose files appear whole or not at all."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from clvp_train.errors import UserError

MENDS = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
}


class Storage:
    """A folder and the few operations on it that are needed. A local file is written beside its place, flushed to the disk and
    moved there; elsewhere it is written beside its place and moved by the file system's own means.

    Args:
        folder: a local path, or an fsspec URL such as `s3://bucket/pairs` (with s3fs installed).

    Raises:
        UserError: no file system is known for the URL.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = str(folder).rstrip("/") or "/"
        if "://" not in self.folder:
            self._files: fsspec.AbstractFileSystem = LocalFileSystem()
            self._root = os.path.abspath(os.path.expanduser(self.folder))
        else:
            try:
                self._files, self._root = fsspec.url_to_fs(self.folder)
            except (ValueError, ImportError) as error:
                raise UserError(f"{folder} cannot be opened ({error}): give a local folder or another URL") from None
        self._local = isinstance(self._files, LocalFileSystem)

    @property
    def local(self) -> Path | None:
        """The folder's path on this machine; None elsewhere."""
        return Path(self._root) if self._local else None

    def path(self, name: str) -> str:
        """What to call a file in messages."""
        return f"{self.folder}/{name}"

    def exists(self, name: str) -> bool:
        self._files.invalidate_cache(self._root)
        return self._files.exists(self._place(name))

    def sizes(self, subfolder: str = "") -> dict[str, int]:
        """The size in bytes of each file right below the folder, or below a subfolder of it; {} if there is none."""
        place = self._place(subfolder)
        self._files.invalidate_cache(place)
        try:
            found = self._files.ls(place, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in found if entry["type"] != "directory"}

    def read(self, name: str) -> bytes:
        """Raises OSError if the file is missing or cannot be read."""
        return self._files.cat_file(self._place(name))

    def write(self, name: str, data: bytes) -> None:
        """Replaces a file as a whole. Raises UserError as `replacing` does."""
        with self.replacing(name) as partial:
            self._files.pipe_file(partial, data)

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[str]:
        """Gives the path of a new file, which takes a file's place as a whole when the block ends, and is gone if it fails.

        Raises:
            UserError: the disk is full, or the folder cannot be written to.
        """
        place = self._place(name)
        parent, base = place.rsplit("/", 1)
        partial = f"{parent}/.{base}.{_host()}-{os.getpid()}.partial"
        try:
            self._files.makedirs(parent, exist_ok=True)
            try:
                yield partial
                self._move(partial, place)
            except BaseException:
                with contextlib.suppress(OSError, NotImplementedError):
                    self._files.rm_file(partial)
                raise
        except OSError as error:
            mend = MENDS.get(error.errno or 0, "mend the folder's permissions, or give another one")
            raise UserError(
                f"{self.path(name)} cannot be written ({error.strerror or error}): {mend}; finished shards are kept, and "
                "the same command goes on from there"
            ) from None

    def _move(self, partial: str, place: str) -> None:
        if not self._local:
            self._files.mv(partial, place)
            return
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, place)

    def remove(self, name: str) -> None:
        """Removes a file or a subfolder with all that is in it, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm(self._place(name), recursive=True)

    def sweep(self, subfolder: str = "") -> None:
        """Removes what processes of this machine that live no more have left half-written. Those of other machines stay,
        because nothing says here whether their writers live."""
        for name in self.sizes(subfolder):
            writer = name.removesuffix(".partial").rsplit(".", 1)[-1].removeprefix(f"{_host()}-")
            if name.startswith(".") and name.endswith(".partial") and writer.isdecimal() and not _lives(int(writer)):
                self.remove(f"{subfolder}/{name}".lstrip("/"))

    def _place(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")


def _host() -> str:
    return socket.gethostname().replace(".", "_").replace("/", "_")


def _lives(process: int) -> bool:
    if process == os.getpid():  # sweeping comes before writing: one of that number has died
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True
