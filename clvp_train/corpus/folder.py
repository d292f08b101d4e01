"""A folder of audio files, each with its transcript in a .txt beside it."""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clvp_train.corpus.files import absolute, existing_folder, read_lines
from clvp_train.corpus.utterance import Corpus, Row
from clvp_train.errors import UserError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
_NOT_TRANSCRIPTS = ("readme", "license", "licence", "copying", "notice")


@dataclass
class Folder(Corpus):
    """Reads `a/b.wav` with `a/b.txt`, at any depth, sorted by id; the id is the relative path without suffix and the
    speaker is the first-level sub-folder. Hidden files, and a README or licence, are passed over.

    Attributes:
        root: the top folder.
    """

    root: str

    @property
    def name(self) -> str:
        return absolute(self.root).name

    @property
    def source(self) -> str:
        return str(absolute(self.root))

    def _rows(self) -> Iterator[Row]:
        root = existing_folder(self.root, "corpus.root")
        audio, transcripts = _find(root)
        for transcript in sorted(transcripts - {file.with_suffix(".txt") for file in audio}):
            if not transcript.name.lower().startswith(_NOT_TRANSCRIPTS):
                raise UserError(
                    f"{transcript} has no audio file beside it: add {transcript.stem}.wav, or remove the .txt"
                )
        for id_, file in sorted((_id_from(file, root), file) for file in audio):
            transcript = file.with_suffix(".txt")
            if transcript not in transcripts:
                raise UserError(
                    f"{file} has no transcript: write it to {transcript.name} beside it, or remove the audio file"
                )
            text = " ".join(line for _, line in read_lines(transcript))
            yield Row(str(transcript), id_, text, str(file), id_.split("/")[0] if "/" in id_ else None)


def _id_from(file: Path, root: Path) -> str:
    return unicodedata.normalize("NFC", file.relative_to(root).with_suffix("").as_posix())


def _find(root: Path) -> tuple[set[Path], set[Path]]:
    """All audio files and all .txt files below `root`."""
    audio, transcripts = set(), set()
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for file in (Path(folder, name) for name in names if not name.startswith(".")):
            if file.suffix.lower() in AUDIO_SUFFIXES:
                audio.add(file)
            elif file.suffix == ".txt":
                transcripts.add(file)
    return audio, transcripts
