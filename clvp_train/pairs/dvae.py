"""Speech codes of recordings, encoded by the DVAE."""

import io
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import soundfile

from clvp_train.corpus import Utterance
from clvp_train.errors import UserError
from clvp_train.pairs.sources import (
    BAD_AUDIO,
    UNKNOWN,
    BadRows,
    CodeSource,
    OnCandidate,
    Rows,
    Utterances,
    has_tokens,
    load_recording,
)
from clvp_train.tortoise import FrozenTortoise


@dataclass(eq=False)
class DVAECodes(CodeSource):
    """The codes of the recordings. The original CLVP was trained on human speech in this form."""

    _: KW_ONLY
    batch_size: int = 32
    name: ClassVar[str] = "dvae"
    needs_audio: ClassVar[bool] = True
    has_quality: ClassVar[bool] = False

    def check(self, tortoise: FrozenTortoise) -> None:
        if tortoise.dvae is None:
            tortoise.speech_codes([])  # raises UserError

    def inspect(self, tortoise: FrozenTortoise, number: int, utterance: Utterance) -> None:
        if utterance.audio is None:
            raise UserError(f"utterance {utterance.id}: no audio, but codes=dvae needs recordings. Use codes=ar.")
        if self.bad_rows == "error":
            has_tokens(_tokens(tortoise, utterance), utterance, BadRows("error"))

    def encode(self, tortoise: FrozenTortoise, utterances: Utterances, bad: BadRows, on_candidate: OnCandidate) -> Rows:
        rows: dict[int, dict[str, Any]] = {}
        # batches of similar lengths need little padding
        by_length = sorted(range(len(utterances)), key=lambda index: _seconds(utterances[index][0].audio))
        for start in range(0, len(by_length), self.batch_size):
            clips = {}
            for index in by_length[start : start + self.batch_size]:
                utterance, split = utterances[index]
                input_ids = _tokens(tortoise, utterance)
                if not has_tokens(input_ids, utterance, bad):
                    continue
                try:
                    clips[index] = load_recording(utterance)
                except UserError as error:
                    bad.add(utterance.id, BAD_AUDIO, str(error))
                    continue
                rows[index] = {
                    "id": utterance.id,
                    "text": utterance.text,
                    "split": split,
                    "input_ids": input_ids,
                    "voice": utterance.speaker or UNKNOWN,
                    "candidate": 0,
                    "finished": True,
                }
            for index, codes in zip(clips, tortoise.speech_codes(list(clips.values())) if clips else []):
                rows[index]["speech_ids"] = codes
                on_candidate(len(codes))
        return [rows[index] for index in sorted(rows)]


def _tokens(tortoise: FrozenTortoise, utterance: Utterance) -> list[int]:
    """The tokens of a text of any length: the limit of the AR does not apply."""
    return tortoise.tokenizer(utterance.text)["input_ids"]


def _seconds(audio: str | bytes | None) -> float:
    """The duration from a file's header; 0 if it cannot be read, which `encode` reports."""
    try:
        return soundfile.info(io.BytesIO(audio) if isinstance(audio, bytes) else audio).duration
    except (soundfile.LibsndfileError, OSError, TypeError):
        return 0.0
