"""Where speech codes come from: drawn by the frozen AR, or read off recordings by the DVAE."""

import hashlib
import logging
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from clvp_train.corpus import Split, Utterance
from clvp_train.errors import UserError, check_number
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio

Row = dict[str, Any]
TooLong = Literal["error", "skip"]
log = logging.getLogger(__name__)
FROM_CORPUS = "corpus"
UNKNOWN = "unknown"  # the voice of utterances without a speaker
AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}


class CodeSource(ABC):
    """Turns utterances into rows of `shards.SCHEMA`, the same rows whatever else is in the batch."""

    name: str

    @abstractmethod
    def prepare(self, tortoise: FrozenTortoise, utterances: Sequence[Utterance]) -> str:
        """Checks all that can be checked before the work begins. Returns what shapes the codes besides Tortoise and corpus.

        Raises:
            UserError: an utterance cannot be encoded, or a voice is missing.
        """

    @abstractmethod
    def encode(
        self,
        tortoise: FrozenTortoise,
        utterances: Sequence[tuple[Utterance, Split]],
        on_codes: Callable[[int], None],
    ) -> list[Row]:
        """The rows of these utterances, in their order. `on_codes` is told how many codes each step made."""


class ARCodes(CodeSource):
    """Candidates drawn by the AR, each in one of the voices in turn.

    Args:
        voices: a folder with one subfolder of reference clips a voice; or "corpus" to speak each text in its own
            speaker's voice, heard from the corpus's recordings.
        num_candidates: K for each training text.
        num_eval_candidates: K for each validation and test text.
        batch_size: candidates drawn at once.
        seed: another seed gives other candidates.
        clips_per_voice: reference clips of a speaker whose latents are averaged, with voices=corpus.
        too_long: what to do about a text beyond the AR's limit: "error" before any work, or "skip" it.
    """

    name = "ar"

    def __init__(
        self,
        voices: str,
        num_candidates: int = 4,
        num_eval_candidates: int = 1,
        batch_size: int = 256,
        seed: int = 0,
        clips_per_voice: int = 4,
        too_long: TooLong = "error",
    ) -> None:
        check_number("codes.num_candidates", num_candidates, 1)
        check_number("codes.num_eval_candidates", num_eval_candidates, 1)
        check_number("codes.batch_size", batch_size, 1)
        check_number("codes.seed", seed, 0)
        check_number("codes.clips_per_voice", clips_per_voice, 1)
        if too_long not in get_args(TooLong):
            raise UserError(f"codes.too_long={too_long}: choose one of {', '.join(get_args(TooLong))}")
        self.too_long = too_long
        self.voices, self.batch_size, self.seed, self.clips_per_voice = voices, batch_size, seed, clips_per_voice
        self.num_candidates, self.num_eval_candidates = num_candidates, num_eval_candidates
        self._clips: dict[str, list[Path | str | bytes]] = {}
        self._latents: dict[str, torch.Tensor] = {}
        self._input_ids: dict[str, list[int]] = {}  # by utterance; those too long for the AR are left out

    def prepare(self, tortoise: FrozenTortoise, utterances: Sequence[Utterance]) -> str:
        self._input_ids = {}
        for utterance in utterances:
            try:
                self._input_ids[utterance.id] = tortoise.tokenize(utterance.text)
            except UserError as error:
                if self.too_long == "error":
                    raise UserError(f"utterance {utterance.id}: {error}, or set codes.too_long=skip") from None
        num_skipped = len(utterances) - len(self._input_ids)
        if num_skipped:
            log.warning("%d of %d texts are too long for the AR: skipped", num_skipped, len(utterances))
        self._clips = self._corpus_voices(utterances) if self.voices == FROM_CORPUS else self._folder_voices()
        clips = [f"{voice} {_audio_digest(clip)}" for voice, clips in self._clips.items() for clip in clips]
        settings = (self.voices == FROM_CORPUS, self.num_candidates, self.num_eval_candidates, self.seed)
        return "\n".join([*clips, repr(settings)])

    def encode(
        self,
        tortoise: FrozenTortoise,
        utterances: Sequence[tuple[Utterance, Split]],
        on_codes: Callable[[int], None],
    ) -> list[Row]:
        rows = [
            self._row(utterance, split, candidate)
            for utterance, split in utterances
            if utterance.id in self._input_ids
            for candidate in range(self.num_candidates if split == "train" else self.num_eval_candidates)
        ]
        by_length = sorted(rows, key=lambda row: len(row["input_ids"]))
        for start in range(0, len(by_length), self.batch_size):
            batch = by_length[start : start + self.batch_size]
            latents = torch.stack([self._latent(tortoise, row["voice"]) for row in batch])
            texts, seeds = [row["input_ids"] for row in batch], [row["seed"] for row in batch]
            drawn = tortoise.candidates(texts, latents, 1, seeds, on_codes)
            for row, (candidate,) in zip(batch, drawn):
                row |= {"speech_ids": candidate.codes, "finished": candidate.finished}
        return [row for row in rows if len(row["speech_ids"]) > 0]

    def _row(self, utterance: Utterance, split: Split, candidate: int) -> Row:
        digest = hashlib.sha256(f"{self.seed}\n{utterance.id}\n{utterance.text}".encode()).digest()
        names = list(self._clips)
        own = (utterance.speaker or UNKNOWN) if self.voices == FROM_CORPUS else None
        return {
            "id": utterance.id,
            "text": utterance.text,
            "split": split,
            "input_ids": self._input_ids[utterance.id],
            "voice": own or names[(digest[0] + candidate) % len(names)],
            "candidate": candidate,
            "seed": int.from_bytes(digest[1:7], "big") + candidate,
        }

    def _latent(self, tortoise: FrozenTortoise, voice: str) -> torch.Tensor:
        if voice not in self._latents:
            self._latents[voice] = tortoise.latent([load_audio(clip) for clip in self._clips[voice]])
        return self._latents[voice]

    def _folder_voices(self) -> dict[str, list[Path | str | bytes]]:
        folder = Path(self.voices)
        if not folder.is_dir():
            raise UserError(
                f"codes.voices={self.voices} is no folder: give one with a subfolder of clips for each voice"
            )
        found: dict[str, list[Path | str | bytes]] = {}
        for voice in sorted(path for path in folder.iterdir() if path.is_dir()):
            clips = [path for path in sorted(voice.iterdir()) if path.suffix.lower() in AUDIO_SUFFIXES]
            if clips:
                found[voice.name] = list(clips)
        if not found:
            raise UserError(
                f"codes.voices={self.voices} holds no voice: make a subfolder of wav or flac clips for each"
            )
        return found

    def _corpus_voices(self, utterances: Sequence[Utterance]) -> dict[str, list[Path | str | bytes]]:
        found: dict[str, list[Path | str | bytes]] = defaultdict(list)
        for utterance in utterances:
            if utterance.audio is None:
                raise UserError(
                    f"utterance {utterance.id} has no audio, so codes.voices=corpus has no voice: give a folder"
                )
            found[utterance.speaker or UNKNOWN].append(utterance.audio)
        # the longest clips say most about a voice
        return {voice: sorted(clips, key=_size, reverse=True)[: self.clips_per_voice] for voice, clips in found.items()}


class DVAECodes(CodeSource):
    """The codes of recordings themselves, as the original CLVP saw human speech.

    Args:
        batch_size: clips encoded at once.
    """

    name = "dvae"

    def __init__(self, batch_size: int = 32) -> None:
        check_number("codes.batch_size", batch_size, 1)
        self.batch_size = batch_size

    def prepare(self, tortoise: FrozenTortoise, utterances: Sequence[Utterance]) -> str:
        if tortoise.dvae is None:
            tortoise.speech_codes([])  # says what is missing
        for utterance in utterances:
            if utterance.audio is None:
                raise UserError(f"utterance {utterance.id} has no audio, and codes=dvae needs recordings: use codes=ar")
        return self.name

    def encode(
        self,
        tortoise: FrozenTortoise,
        utterances: Sequence[tuple[Utterance, Split]],
        on_codes: Callable[[int], None],
    ) -> list[Row]:
        rows = []
        for start in range(0, len(utterances), self.batch_size):
            batch = utterances[start : start + self.batch_size]
            clips = [load_audio(utterance.audio or b"", _clip_name(utterance)) for utterance, _ in batch]
            for (utterance, split), codes in zip(batch, tortoise.speech_codes(clips)):
                on_codes(len(codes))
                rows.append(
                    {
                        "id": utterance.id,
                        "text": utterance.text,
                        "split": split,
                        "input_ids": tortoise.tokenizer(utterance.text)["input_ids"],
                        "speech_ids": codes,
                        "voice": utterance.speaker or UNKNOWN,
                        "candidate": 0,
                        "finished": True,
                        "seed": 0,
                    }
                )
        return rows


def _clip_name(utterance: Utterance) -> str:
    return utterance.audio if isinstance(utterance.audio, str) else f"of utterance {utterance.id}"


def _size(clip: Path | str | bytes) -> int:
    return len(clip) if isinstance(clip, bytes) else Path(clip).stat().st_size


def _audio_digest(clip: Path | str | bytes) -> str:
    return hashlib.sha256(clip if isinstance(clip, bytes) else Path(clip).read_bytes()).hexdigest()
