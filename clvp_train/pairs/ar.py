"""Speech codes drawn by the AR: several candidates per text, in alternating voices."""

import hashlib
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from clvp_train.corpus import Corpus, Split, Utterance
from clvp_train.errors import UserError
from clvp_train.io.digests import file_digest
from clvp_train.pairs.judges import CandidateJudge
from clvp_train.pairs.sources import (
    FROM_CORPUS,
    NO_CODES,
    NO_VOICE,
    TOO_LONG,
    UNKNOWN,
    BadRows,
    CodeSource,
    OnCandidate,
    Rows,
    Utterances,
    has_tokens,
)
from clvp_train.pairs.voices import CorpusVoices, folder_voices
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio


@dataclass(eq=False)
class ARCodes(CodeSource):
    """Candidates drawn by the AR.

    Attributes:
        voices: a folder with one subfolder of reference clips per voice; or "corpus": each text in the voice of its speaker,
            taken from the recordings of the corpus.
        num_candidates: K, candidates per training text; 0 leaves the training split empty.
        num_eval_candidates: K per validation and test text.
        batch_size: candidates drawn in parallel; None: 256, or as many as the free memory of the GPU takes.
        seed: of the random draws.
        clips_per_voice: reference clips per speaker whose conditioning latents are averaged, with voices=corpus.
        one_voice: all candidates of a text in the same voice, as in re-ranking, instead of alternating voices.
        judge: measures the quality of each candidate; None: the column `quality` is null.
    """

    voices: str
    num_candidates: int = 2
    num_eval_candidates: int = 1
    _: KW_ONLY
    batch_size: int | None = None  # type: ignore[assignment]
    seed: int = 0
    clips_per_voice: int = 4
    one_voice: bool = False
    judge: CandidateJudge | None = None
    name: ClassVar[str] = "ar"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._clips: dict[str, list[Path]] = {}
        self._speakers = CorpusVoices(self.clips_per_voice)
        self._latents: dict[str, torch.Tensor] = {}

    @property
    def has_speakers(self) -> bool:
        """Whether the voices are those of the corpus."""
        return self.voices == FROM_CORPUS

    @property
    def needs_audio(self) -> bool:
        return self.has_speakers or (self.judge is not None and self.judge.needs_audio)

    @property
    def has_quality(self) -> bool:
        return self.judge is not None

    def check(self, tortoise: FrozenTortoise) -> None:
        tortoise.check_can_generate()
        self._clips = {} if self.has_speakers else folder_voices(self.voices)
        self._speakers = CorpusVoices(self.clips_per_voice)
        if self.judge is not None:
            self.judge.check(tortoise)

    def inspect(self, tortoise: FrozenTortoise, number: int, utterance: Utterance) -> None:
        if self.has_speakers:
            self._speakers.inspect(number, utterance)
        elif self.needs_audio and utterance.audio is None:
            raise UserError(
                f"utterance {utterance.id}: no audio, but codes.judge needs recordings. Set codes.judge.recordings to a file."
            )
        if self.bad_rows == "error":
            _tokens(tortoise, utterance, BadRows("error"))

    def noted(self) -> dict[str, Any]:
        return self._speakers.noted()

    def note(self, noted: dict[str, Any]) -> None:
        self._speakers.note(noted)

    def settings(self) -> dict[str, Any]:
        clips = [f"{voice} {file_digest(clip)}" for voice, clips in self._clips.items() for clip in clips]
        more: dict[str, Any] = {"codes.clips_per_voice": self.clips_per_voice} if self.has_speakers else {}
        more |= {"codes.one_voice": True} if self.one_voice else {}
        more |= {} if self.judge is None else self.judge.settings()
        return {
            "codes.voices": FROM_CORPUS if self.has_speakers else hashlib.sha256("\n".join(clips).encode()).hexdigest(),
            "codes.num_candidates": self.num_candidates,
            "codes.num_eval_candidates": self.num_eval_candidates,
            "codes.seed": self.seed,
        } | more

    def prepare(self, tortoise: FrozenTortoise, corpus: Corpus, bad: BadRows) -> None:
        if self.has_speakers:
            self._latents = self._speakers.latents(tortoise, corpus, bad)
        else:
            self._latents = {
                voice: tortoise.conditioning_latent([load_audio(clip) for clip in clips])
                for voice, clips in self._clips.items()
            }

    def num_rows(self, utterance: Utterance, split: Split) -> int:
        return self.num_candidates if split == "train" else self.num_eval_candidates

    def encode(self, tortoise: FrozenTortoise, utterances: Utterances, bad: BadRows, on_candidate: OnCandidate) -> Rows:
        rows = [row for utterance, split in utterances for row in self._rows(tortoise, utterance, split, bad)]
        if not rows:
            return []
        latents = torch.stack([self._latents[row["voice"]] for row in rows])
        texts, seeds = [row["input_ids"] for row in rows], [row["seed"] for row in rows]
        drawn = tortoise.candidates(
            texts, latents, 1, seeds, self.batch_size, on_candidate=lambda candidate: on_candidate(len(candidate.codes))
        )
        for row, (candidate,) in zip(rows, drawn):
            row |= {
                "speech_ids": candidate.codes,
                "finished": candidate.finished,
                "log_probability": candidate.log_probability,
            }
            if not candidate.codes:
                bad.add(row["id"], NO_CODES, f"candidate {row['candidate']} has no codes. Remove the text")
        rows = [row for row in rows if row["speech_ids"]]
        if self.judge is not None:
            qualities = self.judge.qualities(tortoise, rows, [utterance for utterance, _ in utterances], bad)
            for row, quality in zip(rows, qualities, strict=True):
                row["quality"] = quality
        return rows

    def _rows(self, tortoise: FrozenTortoise, utterance: Utterance, split: Split, bad: BadRows) -> Rows:
        speaker, names = utterance.speaker or UNKNOWN, list(self._latents)
        if self.has_speakers and speaker not in self._latents:
            reason = f"no recording of speaker {speaker} can be read. Replace the recordings or remove the row"
            bad.add(utterance.id, NO_VOICE, reason)
            return []
        input_ids = _tokens(tortoise, utterance, bad)
        digest = hashlib.sha256(f"{self.seed}\n{utterance.id}\n{utterance.text}".encode()).digest()
        turn = 0 if self.one_voice else 1
        return [
            {
                "id": utterance.id,
                "text": utterance.text,
                "split": split,
                "input_ids": input_ids,
                "voice": speaker if self.has_speakers else names[(digest[0] + turn * candidate) % len(names)],
                "candidate": candidate,
                "seed": int.from_bytes(digest[1:7], "big") + candidate,
            }
            for candidate in range(self.num_rows(utterance, split) if input_ids else 0)
        ]


def _tokens(tortoise: FrozenTortoise, utterance: Utterance, bad: BadRows) -> list[int]:
    """The tokens of a text; [] if the AR cannot take it."""
    try:
        ids = tortoise.tokenize(utterance.text)
    except UserError as error:
        bad.add(utterance.id, TOO_LONG, str(error))
        return []
    return ids if has_tokens(tortoise.tokenizer, ids, utterance, bad) else []
