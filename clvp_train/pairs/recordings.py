"""Speech codes that the DVAE reads off recordings."""

import io
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import soundfile

from clvp_train.corpus import Corpus, Split, Utterance
from clvp_train.errors import UserError
from clvp_train.pairs.bad_rows import BAD_AUDIO, BadRows
from clvp_train.pairs.sources import UNKNOWN, CodeSource, Row, clip_name, has_tokens
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio


@dataclass(eq=False)
class DVAECodes(CodeSource):
    """The codes of recordings themselves, as the original CLVP saw human speech."""

    _: KW_ONLY
    batch_size: int = 32
    name: ClassVar[str] = "dvae"

    @property
    def needs_audio(self) -> bool:
        return True

    def check(self, tortoise: FrozenTortoise) -> None:
        if tortoise.dvae is None:
            tortoise.speech_codes([])  # says what is missing

    def look_at(self, tortoise: FrozenTortoise, number: int, utterance: Utterance) -> None:
        if utterance.audio is None:
            raise UserError(f"utterance {utterance.id} has no audio, and codes=dvae needs recordings: use codes=ar")
        if self.bad_rows == "error":
            has_tokens(_tokens(tortoise, utterance), utterance, BadRows("error"))

    def settings(self) -> dict[str, Any]:
        return {}

    def begin(self, tortoise: FrozenTortoise, corpus: Corpus, bad: BadRows) -> None:
        """There is nothing to prepare."""

    def num_rows(self, split: Split) -> int:
        return 1

    def encode(
        self,
        tortoise: FrozenTortoise,
        utterances: Sequence[tuple[Utterance, Split]],
        bad: BadRows,
        on_candidate: Callable[[int], None],
    ) -> list[Row]:
        rows: dict[int, Row] = {}
        # clips of like length side by side leave little padding
        by_length = sorted(range(len(utterances)), key=lambda place: _seconds(utterances[place][0].audio))
        for start in range(0, len(by_length), self.batch_size):
            clips = {}
            for place in by_length[start : start + self.batch_size]:
                utterance, split = utterances[place]
                input_ids = _tokens(tortoise, utterance)
                if not has_tokens(input_ids, utterance, bad):
                    continue
                try:
                    clips[place] = load_audio(utterance.audio or b"", clip_name(utterance))
                except UserError as error:
                    bad.add(utterance.id, BAD_AUDIO, str(error))
                    continue
                rows[place] = {
                    "id": utterance.id,
                    "text": utterance.text,
                    "split": split,
                    "input_ids": input_ids,
                    "voice": utterance.speaker or UNKNOWN,
                    "candidate": 0,
                    "finished": True,
                }
            for place, codes in zip(clips, tortoise.speech_codes(list(clips.values())) if clips else []):
                rows[place]["speech_ids"] = codes
                on_candidate(len(codes))
        return [rows[place] for place in sorted(rows)]


def _tokens(tortoise: FrozenTortoise, utterance: Utterance) -> list[int]:
    """Of any length: the AR's limit is none of the DVAE's."""
    return tortoise.tokenizer(utterance.text)["input_ids"]


def _seconds(audio: str | bytes | None) -> float:
    """From a file's header; 0 of one that cannot be read, which is told later."""
    try:
        return soundfile.info(io.BytesIO(audio) if isinstance(audio, bytes) else audio).duration
    except (soundfile.LibsndfileError, OSError, TypeError):
        return 0.0
