"""Folders of recordings with their transcripts, in the layouts of public corpora."""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clvp_train.corpus.base import (
    AUDIO_SUFFIXES,
    OTHER_AUDIO_SUFFIXES,
    LocalCorpus,
    Row,
    is_clutter,
    read_lines,
)
from clvp_train.errors import UserError

_SUFFIXES = (*AUDIO_SUFFIXES, *OTHER_AUDIO_SUFFIXES)
_TEXT_FORMS = ("", ".normalized", ".original")  # of a transcript's stem, the first that exists is read
_NOT_TRANSCRIPTS = ("readme", "license", "licence", "copying", "notice")
_TABLES = ("speakers", "chapters", "books", "speaker-info", "reader_book")  # of LibriSpeech, LibriTTS, and VCTK
_LISTS = ".trans.txt"


@dataclass
class Folder(LocalCorpus):
    """A folder of audio files with transcripts, at any depth, sorted by id.

    The transcript of `a/b.wav` is `a/b.txt`; or `a/b.normalized.txt` or `a/b.original.txt`, as in LibriTTS; or
    `a/b.wav.txt`, as Whisper writes it; or a line `b text` in an `a/*.trans.txt`, as in LibriSpeech. The id is the relative
    path without suffix, and the speaker is the first-level subfolder. Hidden files, READMEs and licences are ignored.

    Attributes:
        root: the top folder.
    """

    root: str

    source_files = LocalCorpus._local_files

    def _rows(self) -> Iterator[Row]:
        root = self._existing()
        if (root / "txt").is_dir() and any(root.glob("wav48*")):
            raise UserError(f"{root}: has VCTK's layout. Set corpus=vctk.")
        audio, transcripts, lists = _scan(root)
        lines_in: tuple[Path | None, dict[str, tuple[str, str]]] = None, {}
        for stem, transcript in sorted(transcripts.items()):
            if stem not in audio and _is_transcript(transcript):
                raise UserError(f"{transcript}: no audio file. Add {stem.name}.wav or remove the transcript.")
        for id_, stem in sorted((_id_from(stem, root), stem) for stem in audio):
            if stem in transcripts:
                where, text = str(transcripts[stem]), " ".join(line for _, line in read_lines(transcripts[stem]))
            else:
                if lines_in[0] != stem.parent:
                    lines_in = stem.parent, _read_lists(lists.get(stem.parent, []))
                if stem.name not in lines_in[1] and audio[stem].suffix.lower() in OTHER_AUDIO_SUFFIXES:
                    continue  # such as a video
                if stem.name not in lines_in[1]:
                    raise UserError(f"{audio[stem]}: no transcript. Add {stem.name}.txt or remove the audio file.")
                where, text = lines_in[1][stem.name]
            yield Row(where, id_, text, str(audio[stem]), id_.split("/")[0] if "/" in id_ else None)


@dataclass
class VCTK(LocalCorpus):
    """VCTK's layout: `txt/p225/p225_001.txt` and `wav48*/p225/p225_001.wav`, or `p225_001_mic1.flac` of several microphones.

    The speaker is the folder, and the id `p225/p225_001`. Recordings without a transcript, such as those of p315, and
    transcripts without a recording are left out.

    Attributes:
        root: the folder with `txt/` and `wav48*/`.
        microphone: which one, if there are several.
    """

    root: str
    microphone: int = 1

    source_files = LocalCorpus._local_files

    def _rows(self) -> Iterator[Row]:
        root = self._existing()
        folders = sorted(path for path in root.glob("wav*") if path.is_dir())
        if not folders or not (root / "txt").is_dir():
            raise UserError(f"{root}: no folders txt and wav48. Set corpus.root to the folder that has them.")
        audio, _, _ = _scan(folders[0])
        for stem, transcript in sorted(_scan(root / "txt")[1].items()):
            id_ = _id_from(stem, root / "txt")
            names = (folders[0] / f"{id_}{microphone}" for microphone in ("", f"_mic{self.microphone}"))
            file = next((audio[name] for name in names if name in audio), None)
            if file is not None:
                text = " ".join(line for _, line in read_lines(transcript))
                yield Row(str(transcript), id_, text, str(file), stem.parent.name)


def _is_transcript(file: Path) -> bool:
    stem = file.stem.lower()
    return file.suffix == ".txt" and stem not in _TABLES and not stem.startswith(_NOT_TRANSCRIPTS)


def _id_from(stem: Path, root: Path) -> str:
    return unicodedata.normalize("NFC", stem.relative_to(root).as_posix())


def _scan(root: Path) -> tuple[dict[Path, Path], dict[Path, Path], dict[Path, list[Path]]]:
    """Recordings and transcripts below `root`, by the recording's path without suffix; lists of lines, by folder."""
    audio, texts, lists = dict[Path, Path](), list[Path](), dict[Path, list[Path]]()
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not is_clutter(name)]
        for file in sorted(Path(folder, name) for name in names if not is_clutter(name)):
            suffix, stem = file.suffix.lower(), file.with_suffix("")
            if suffix in _SUFFIXES:
                audio[stem] = min(audio.get(stem, file), file, key=lambda path: _SUFFIXES.index(path.suffix.lower()))
            elif file.name.lower().endswith(_LISTS):
                lists.setdefault(file.parent, []).append(file)
            elif suffix == ".txt":
                texts.append(file)
    transcripts = dict[Path, tuple[int, Path]]()
    for file in texts:
        stem, form = _stem_of(file, audio)
        transcripts[stem] = min(transcripts.get(stem, (form, file)), (form, file))
    return audio, {stem: file for stem, (_, file) in transcripts.items()}, lists


def _stem_of(transcript: Path, audio: dict[Path, Path]) -> tuple[Path, int]:
    """The path of a transcript's recording without suffix, and the place of the transcript's form in `_TEXT_FORMS`."""
    stem = transcript.with_suffix("")
    if stem not in audio and stem.suffix.lower() in (*_TEXT_FORMS, *_SUFFIXES):
        form = _TEXT_FORMS.index(stem.suffix.lower()) if stem.suffix.lower() in _TEXT_FORMS else 0
        return stem.with_suffix(""), form
    return stem, 0


def _read_lists(files: list[Path]) -> dict[str, tuple[str, str]]:
    """(where, text) of each `id text` line, by id."""
    lines = {}
    for file in files:
        for number, line in read_lines(file):
            if line.strip():
                id_, *text = line.split(maxsplit=1)
                lines[id_] = f"{file}, line {number}", "".join(text)
    return lines
