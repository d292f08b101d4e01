"""UTF-8 text files and folders, with errors that say where."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from clvp_train.errors import UserError


def absolute(path: str | Path) -> Path:
    """`path` with `~` replaced and made absolute; links stay."""
    return Path(path).expanduser().absolute()


def existing_folder(path: str | Path, setting: str) -> Path:
    """The absolute path of a folder that must exist; `setting` names the config key to mend."""
    folder = absolute(path)
    if not folder.is_dir():
        raise UserError(
            f"folder {folder} {'is a file' if folder.exists() else 'is missing'}: set {setting} to the corpus folder"
        )
    return folder


def existing_file(path: str | Path, setting: str) -> Path:
    """The absolute path of a file that must exist; `setting` names the config key to mend."""
    file = absolute(path)
    if not file.is_file():
        raise UserError(f"file {file} {'is a folder' if file.exists() else 'is missing'}: mend {setting}")
    return file


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line with its "\\n") of a UTF-8 file, plain or .gz; a byte order mark is dropped.

    Raises:
        UserError: the file cannot be read or is not UTF-8; the message gives the byte offset.
    """
    offset = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"{path}, line {number}: byte {offset + error.start} is not UTF-8: save the file as UTF-8"
                    ) from None
                offset += len(line)
                text = text.removeprefix("\ufeff") if number == 1 else text
                yield number, text[:-2] + "\n" if text.endswith("\r\n") else text
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"file {path} cannot be read ({error}): replace it, or mend its permissions") from None
