"""A folder, local or at any fsspec URL, in which files are replaced atomically."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from clvp_train.errors import UserError
from clvp_train.io import REMEDIES, atomic_write, is_abandoned, partial_name


class Storage:
    """A folder of files. Each file is written under a temporary name and then renamed: locally by `io.atomic_write`, elsewhere
    by the move of the remote file system.

    Args:
        folder: a local path, or an fsspec URL such as `s3://bucket/pairs` (with s3fs installed).

    Raises:
        UserError: the URL's file system is unknown or not installed.
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
                raise UserError(f"{folder}: cannot be opened ({error}). Use a local folder or another URL.") from None
        self._local = isinstance(self._files, LocalFileSystem)

    @property
    def local(self) -> Path | None:
        """The path of a local folder; None for a remote one."""
        return Path(self._root) if self._local else None

    def path(self, name: str) -> str:
        """The name of a file for messages."""
        return f"{self.folder}/{name}"

    def exists(self, name: str) -> bool:
        self._files.invalidate_cache(self._root)
        return self._files.exists(self._path(name))

    def sizes(self, subfolder: str = "") -> dict[str, int]:
        """The size in bytes of each file in the folder, or in a subfolder of it; {} if it does not exist. Not recursive."""
        path = self._path(subfolder)
        self._files.invalidate_cache(path)
        try:
            entries = self._files.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in entries if entry["type"] != "directory"}

    def read(self, name: str) -> bytes:
        """Raises OSError if the file is missing or cannot be read."""
        return self._files.cat_file(self._path(name))

    def write(self, name: str, data: bytes) -> None:
        """Replaces a file atomically. Raises UserError as `replacing` does."""
        with self.replacing(name) as partial:
            self._files.pipe_file(partial, data)

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[str]:
        """Yields the path of a temporary file, which replaces the file `name` when the block ends without an error.

        Raises:
            UserError: the disk is full, or the folder is not writable.
        """
        path = self._path(name)
        try:
            if self._local:
                with atomic_write(Path(path)) as partial:
                    yield str(partial)
            else:
                with self._remote_write(path) as remote:
                    yield remote
        except OSError as error:
            remedy = REMEDIES.get(error.errno or 0, "Check the folder's permissions, or choose another folder")
            raise UserError(
                f"{self.path(name)}: cannot be written ({error.strerror or error}). {remedy}. Finished files are kept: "
                "run the same command again to resume."
            ) from None

    @contextlib.contextmanager
    def _remote_write(self, path: str) -> Iterator[str]:
        """As `io.atomic_write`, by the means of a remote file system."""
        folder, name = path.rsplit("/", 1)
        partial = f"{folder}/{partial_name(name)}"
        self._files.makedirs(folder, exist_ok=True)
        try:
            yield partial
            self._files.mv(partial, path)
        except BaseException:
            with contextlib.suppress(OSError, NotImplementedError):
                self._files.rm_file(partial)
            raise

    def remove(self, name: str) -> None:
        """Removes a file, or a subfolder with its contents, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm(self._path(name), recursive=True)

    def sweep(self, subfolder: str = "") -> None:
        """Removes the partial files of killed processes, see `io.is_abandoned`."""
        for name in filter(is_abandoned, self.sizes(subfolder)):
            self.remove(f"{subfolder}/{name}".lstrip("/"))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")
