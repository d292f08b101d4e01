"""Digests of files: lists of a folder's, and JSON that carries its own, so that damage is noticed on opening."""

import fnmatch
import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clvp_train.errors import UserError
from clvp_train.io import README, write_text

DIGESTS = "SHA256SUMS"  # in a folder, of its files, in the format of sha256sum
LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
MSDOS_FOLDER = 0x10  # attribute of a part of a zip file
NOT_LISTED = (
    DIGESTS,
    README,
    "score_table.json",
    "token_pairs.json",
    "metrics.json",
)  # edited by users, or with a digest inside


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_intact_archive(path: Path) -> bool:
    """Whether every part of a file of torch.save has its checksum, which torch.load does not compare."""
    try:
        with zipfile.ZipFile(path) as archive:
            # for a part that is marked as a folder, torch.load returns uninitialised memory
            return archive.testzip() is None and not any(
                part.external_attr & MSDOS_FOLDER for part in archive.infolist()
            )
    except Exception:  # what is raised depends on the bytes
        return False


@contextmanager
def recording_digests(folder: Path) -> Iterator[None]:
    """Writes `DIGESTS` after the block has written the files of a folder, for `check_digests`. An old list is removed before,
    so that a kill leaves no list that differs from the files."""
    (folder / DIGESTS).unlink(missing_ok=True)
    yield
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    listed = [name for name in names if Path(name).name not in NOT_LISTED and "/." not in f"/{name}"]
    write_text(folder / DIGESTS, "".join(f"{file_digest(folder / name)}  {name}\n" for name in listed))


def check_digests(folder: Path, *patterns: str) -> None:
    """Compares the files of a folder with its list of digests. Does nothing if there is none, as in folders of earlier versions
    or of other tools.

    Args:
        patterns: which of the listed files to compare; by default all.

    Raises:
        UserError: a file is missing or has other bytes, or the list is damaged.
    """
    file = folder / DIGESTS
    if not file.exists():
        return
    try:
        lines = [LINE.fullmatch(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: damaged ({error}). Restore it, or delete it to skip this check.") from None
    if None in lines:
        raise UserError(f"{file}: damaged (line {lines.index(None) + 1}). Restore it, or delete it to skip this check.")
    for digest, name in (line.groups() for line in lines if line is not None):
        path = folder / name
        if patterns and not any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            continue
        if not path.is_file() or file_digest(path) != digest.lower():
            problem = f"its SHA-256 is not the one in {DIGESTS}" if path.is_file() else "missing"
            raise UserError(
                f"{path}: damaged or edited ({problem}). Restore it, or delete its line in {file} if it is meant to differ."
            )


def sealed_json(values: dict[str, Any], **options: Any) -> str:
    """JSON of the values and, under "sha256", their digest, which `read_sealed_json` checks. `options` are of json.dumps."""
    plain = json.loads(json.dumps(values))  # keys as strings, as they are read
    return json.dumps(plain | {"sha256": _values_digest(plain)}, **options)


def read_sealed_json(text: str | bytes) -> dict[str, Any]:
    """The values in JSON, without their digest, which earlier versions did not write.

    Raises:
        ValueError: the text is not JSON, not an object, or was changed.
    """
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    digest = values.pop("sha256", None)
    if digest is not None and digest != _values_digest(values):
        raise ValueError("its values are not those of its sha256")
    return values


def _values_digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
