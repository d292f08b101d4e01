"""A judge of candidates that needs no recordings: a speech recognition model."""

from collections.abc import Sequence
from typing import Any

from clvp_train.corpus import Utterance, text_key
from clvp_train.evaluation.asr import Recognizer, Transcribe, find_recognizer
from clvp_train.evaluation.judges import letter_errors
from clvp_train.pairs import CandidateJudge
from clvp_train.pairs.sources import BadRows
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.vocoder import synthesize

DECODED_AT_ONCE = 64  # candidates whose audio is in memory


class ASRJudge(CandidateJudge):
    """The negative character error rate of a candidate's transcript, without case and punctuation. The word error rate would
    give more candidates the same quality.

    Args:
        asr: transcribes the candidates, decoded by the DVAE and Griffin-Lim: a model, or a name as in `rerank.asr`.

    Raises:
        UserError: there is no such model.
    """

    def __init__(self, asr: Recognizer | str) -> None:
        self.asr = find_recognizer(asr) if isinstance(asr, str) else asr
        self._transcribe: Transcribe | None = None

    def settings(self) -> dict[str, Any]:
        return {"codes.judge": type(self).__name__, "codes.judge.asr": self.asr.fingerprint()}

    def check(self, tortoise: FrozenTortoise) -> None:
        synthesize(tortoise, [])  # raises UserError without a DVAE

    def qualities(
        self, tortoise: FrozenTortoise, rows: Sequence[dict[str, Any]], utterances: Sequence[Utterance], bad: BadRows
    ) -> list[float | None]:
        self._transcribe = self._transcribe or self.asr.open(tortoise.device)
        qualities: list[float | None] = [None] * len(rows)
        by_length = sorted(range(len(rows)), key=lambda n: len(rows[n]["speech_ids"]))  # decoded and transcribed faster
        for start in range(0, len(rows), DECODED_AT_ONCE):
            block = by_length[start : start + DECODED_AT_ONCE]
            transcripts = self._transcribe(synthesize(tortoise, [rows[n]["speech_ids"] for n in block]))
            for n, transcript in zip(block, transcripts):
                text = text_key(rows[n]["text"])
                qualities[n] = -letter_errors(transcript, text) / len(text)
        return qualities
