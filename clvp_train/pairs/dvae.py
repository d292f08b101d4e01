"""Speech codes of recordings, encoded by the DVAE."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from clvp_train.corpus import Utterance
from clvp_train.errors import UserError
from clvp_train.pairs.sources import (
    BAD_AUDIO,
    LONG_AUDIO,
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
from clvp_train.tortoise.audio import audio_seconds

MAX_CODES = 500  # the AR of tortoise-tts never draws more


@dataclass(eq=False)
class DVAECodes(CodeSource):
    """The codes of the recordings. The original CLVP was trained on human speech in this form.

    Attributes:
        max_codes: a recording with more codes is skipped; None: none is.
    """

    _: KW_ONLY
    batch_size: int = 32
    max_codes: int | None = MAX_CODES
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
            has_tokens(tortoise.tokenizer, _tokens(tortoise, utterance), utterance, BadRows("error"))

    def noted(self) -> dict[str, Any]:
        return {}

    def settings(self) -> dict[str, Any]:
        # folders of earlier versions have no such setting
        return {} if self.max_codes == MAX_CODES else {"codes.max_codes": self.max_codes}

    def encode(self, tortoise: FrozenTortoise, utterances: Utterances, bad: BadRows, on_candidate: OnCandidate) -> Rows:
        rows: dict[int, dict[str, Any]] = {}
        # batches of similar lengths need little padding
        seconds = [audio_seconds(utterance.audio) for utterance, _ in utterances]
        by_length = sorted(range(len(utterances)), key=seconds.__getitem__)
        for start in range(0, len(by_length), self.batch_size):
            clips = {}
            for index in by_length[start : start + self.batch_size]:
                utterance, split = utterances[index]
                input_ids = _tokens(tortoise, utterance)
                if not has_tokens(tortoise.tokenizer, input_ids, utterance, bad):
                    continue
                if self._is_too_long(tortoise, utterance, seconds[index], bad):
                    continue
                try:
                    clips[index] = load_recording(utterance, bad.warn)
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

    def _is_too_long(self, tortoise: FrozenTortoise, utterance: Utterance, seconds: float, bad: BadRows) -> bool:
        """Whether a recording has more than `max_codes` codes; if so, it is added to `bad`."""
        if self.max_codes is None or seconds < (limit := self.max_codes * tortoise.seconds_per_code):
            return False
        reason = f"the recording takes {seconds:.1f} s, but codes.max_codes={self.max_codes} are {limit:.1f} s"
        bad.add(utterance.id, LONG_AUDIO, f"{reason}. Split it, or set codes.max_codes")
        return True


def _tokens(tortoise: FrozenTortoise, utterance: Utterance) -> list[int]:
    """The tokens of a text of any length: the limit of the AR does not apply."""
    return tortoise.tokenizer(utterance.text)["input_ids"]
