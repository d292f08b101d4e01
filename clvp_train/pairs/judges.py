"""Judges of candidates, which measure the quality of the codes that the AR has drawn: the column `quality` of the pairs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clvp_train.corpus import Utterance, text_key
from clvp_train.errors import UserError
from clvp_train.io.digests import file_digest
from clvp_train.metrics import mel_distances
from clvp_train.pairs.reader import read_pairs
from clvp_train.pairs.schema import SCHEMA, read_manifest
from clvp_train.pairs.sources import FROM_CORPUS, UNKNOWN, BadRows, Rows, check_codes, load_recording
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.vocoder import decode_mels

COLUMNS = ("text", "voice", "speech_ids")  # of stored recordings
DECODED_AT_ONCE, CLIPS_AT_ONCE = 256, 32  # candidates whose mels, and recordings whose samples are in memory
Key = tuple[str, str]  # of a recording: its text, or its id, and its voice


def read_recordings(path: str, setting: str, alternatives: str = "a folder of pairs") -> pa.Table:
    """The columns `COLUMNS` of stored codes of recordings, as in `schema.SCHEMA`.

    Args:
        path: a Parquet file, or a folder of pairs that was made with codes=dvae.
        setting: names the path in messages.
        alternatives: what the setting may be besides a Parquet file, for messages.

    Raises:
        UserError: it cannot be read, or lacks a column.
    """
    place = Path(path).expanduser()
    try:
        table = read_pairs(place, COLUMNS) if place.is_dir() else pq.read_table(place, columns=list(COLUMNS))
        return table.select(COLUMNS).cast(pa.schema([SCHEMA.field(name) for name in COLUMNS]))
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{setting}={path}: cannot be read ({reason}). Set it to {alternatives} or a Parquet file with the columns "
            f"{', '.join(COLUMNS)}."
        ) from None


def recordings_digest(path: str) -> str:
    """What identifies the codes that `read_recordings` reads."""
    place = Path(path).expanduser()
    return read_manifest(place).fingerprint if place.is_dir() else file_digest(place)


def recording_distances(
    tortoise: FrozenTortoise,
    codes: Sequence[Sequence[int]],
    keys: Sequence[Key],
    recordings: Mapping[Key, Sequence[int]],
) -> np.ndarray:
    """Returns (N,) the distance of each candidate's mel to that of the recording with its key, see `metrics.mel_distances`; NaN
    without a recording. Both are decoded from codes, so that the loss of the DVAE does not count.

    Args:
        tortoise: made the codes, and has a DVAE.
        codes: of N candidates.
        keys: of the candidates.
        recordings: codes by key.
    """
    distances_N = np.full(len(codes), np.nan)
    judged = [n for n, key in enumerate(keys) if key in recordings]
    judged.sort(key=lambda n: len(codes[n]))  # equal lengths are decoded together
    for start in range(0, len(judged), DECODED_AT_ONCE):
        block = judged[start : start + DECODED_AT_ONCE]
        needed = list(dict.fromkeys(keys[n] for n in block))
        mels = dict(zip(needed, decode_mels(tortoise, [recordings[key] for key in needed])))
        candidates = decode_mels(tortoise, [codes[n] for n in block])
        distances_N[block] = mel_distances(candidates, [mels[keys[n]] for n in block])
    return distances_N


class CandidateJudge(ABC):
    """Measures the quality of candidates. It must not depend on the other candidates."""

    needs_audio: bool = False  # whether it needs the recordings of the corpus

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What determines the qualities besides Tortoise and corpus, by setting."""

    def check(self, tortoise: FrozenTortoise) -> None:  # noqa: B027  optional
        """Checks what settings and Tortoise alone determine. Raises UserError."""

    @abstractmethod
    def qualities(
        self, tortoise: FrozenTortoise, rows: Rows, utterances: Sequence[Utterance], bad: BadRows
    ) -> list[float | None]:
        """The quality of each candidate, higher is better; None where it cannot be judged.

        Args:
            tortoise: made the codes.
            rows: candidates as in `schema.SCHEMA`.
            utterances: those of a shard, which the rows belong to.
            bad: receives warnings about what cannot be judged.
        """


@dataclass(eq=False)
class RecordingDistance(CandidateJudge):
    """The negative distance of a candidate's log-mel to that of a recording of its text in its voice, see
    `recording_distances`. Candidates in other voices than those of their text's recordings are not judged.

    Attributes:
        recordings: "corpus": the corpus's own recordings, in the voices of its speakers; or codes of recordings, which are kept
            in memory: a folder of pairs that was made with codes=dvae, or a Parquet file with the columns text, voice and
            speech_ids.
    """

    recordings: str

    def __post_init__(self) -> None:
        self._stored: dict[Key, int] = {}  # row of each stored recording, by normalised text and voice
        self._stored_codes: pa.ChunkedArray = pa.chunked_array([], pa.list_(pa.int32()))

    @property
    def needs_audio(self) -> bool:  # type: ignore[override]
        return self.recordings == FROM_CORPUS

    def settings(self) -> dict[str, Any]:
        digest = FROM_CORPUS if self.needs_audio else recordings_digest(self.recordings)
        return {"codes.judge": type(self).__name__, "codes.judge.recordings": digest}

    def check(self, tortoise: FrozenTortoise) -> None:
        decode_mels(tortoise, [])  # raises UserError without a DVAE
        if self.needs_audio:
            return
        table = read_recordings(self.recordings, "codes.judge.recordings", "corpus, a folder of pairs,")
        table = table.filter(pc.greater(pc.list_value_length(table["speech_ids"]), 0))
        check_codes(f"codes.judge.recordings={self.recordings}", pc.list_flatten(table["speech_ids"]), tortoise)
        keys = zip(map(text_key, table["text"].to_pylist()), table["voice"].to_pylist())
        self._stored, self._stored_codes = {key: row for row, key in enumerate(keys)}, table["speech_ids"]

    def qualities(
        self, tortoise: FrozenTortoise, rows: Rows, utterances: Sequence[Utterance], bad: BadRows
    ) -> list[float | None]:
        keys = [(row["id"] if self.needs_audio else text_key(row["text"]), row["voice"]) for row in rows]
        recordings = self._encoded(tortoise, utterances, bad) if self.needs_audio else self._of(keys)
        distances_N = recording_distances(tortoise, [row["speech_ids"] for row in rows], keys, recordings)
        if np.isnan(distances_N).all():
            bad.warn(
                "codes.judge: no candidate of this shard has a recording of its text in its voice, so none is judged"
            )
        return [None if np.isnan(distance) else -distance for distance in distances_N.tolist()]

    def _of(self, keys: Sequence[Key]) -> dict[Key, list[int]]:
        """The codes of the stored recordings among these."""
        return {key: self._stored_codes[self._stored[key]].as_py() for key in set(keys) if key in self._stored}

    def _encoded(self, tortoise: FrozenTortoise, utterances: Sequence[Utterance], bad: BadRows) -> dict[Key, list[int]]:
        """The codes of the readable recordings of utterances, by id and speaker."""
        codes: dict[Key, list[int]] = {}
        for start in range(0, len(utterances), CLIPS_AT_ONCE):
            clips = {}
            for utterance in utterances[start : start + CLIPS_AT_ONCE]:
                try:
                    clip = load_recording(utterance, bad.warn)
                except UserError as error:
                    bad.warn(f"candidates of utterance {utterance.id} are not judged: {error}")
                else:
                    clips[utterance.id, utterance.speaker or UNKNOWN] = clip
            codes |= zip(clips, tortoise.speech_codes(list(clips.values())) if clips else [])
        return codes
