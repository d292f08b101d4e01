"""UTF-8 text files, with errors that give file, line and byte."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from clvp_train.errors import UserError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def absolute(path: str | Path) -> Path:
    """`path` with `~` expanded and made absolute; symbolic links are not resolved."""
    return Path(path).expanduser().absolute()


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
                        f"{path}, line {number}: byte {offset + error.start} is not UTF-8. Save the file as UTF-8."
                    ) from None
                offset += len(line)
                text = text.removeprefix("\ufeff") if number == 1 else text
                yield number, text[:-2] + "\n" if text.endswith("\r\n") else text
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}). Replace the file or check its permissions.") from None
