"""Codes of any codec as one sequence of ids. Shapes: Q streams (quantiser levels), T frames, S ids."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clvp_train.errors import UserError

STREAMS, LAYOUTS = ("first", "flatten", "delay"), ("streams_first", "frames_first")
Cell = Any  # codes as they are stored: a list, lists of lists, an array, an Arrow scalar, or a string of numbers


@dataclass(frozen=True)
class Codec:
    """What the codes of a codec mean, and how several streams become the one sequence that CLVP reads.

    A frame with `start_code` at the beginning is dropped, as is everything from the first `stop_code` on, and frames with
    `pad_code` at the end; the first stream decides. Then `offset` is subtracted from every code.

    Attributes:
        vocab_size: codes of one stream, without special codes: 0 to vocab_size - 1 after `offset` is subtracted.
        frame_rate: frames per second of speech.
        num_streams: how many streams are read; further ones are ignored.
        streams: what several streams become. "first": the first alone. "flatten": frame by frame, all streams of a frame.
            "delay": in the order of the delay pattern, in which stream q of frame t is step t + q; the streams of a step follow
            each other. In the latter two, the codes of stream q are shifted by q · vocab_size.
        layout: of codes in several streams: "streams_first" (Q, T) or "frames_first" (T, Q).
        offset: of the codes, such as the number of text tokens in a language model that has one vocabulary for both.
        start_code, stop_code, pad_code: before `offset` is subtracted; None: there is none.

    Raises:
        UserError: `streams` or `layout` is unknown.
    """

    vocab_size: int
    frame_rate: float
    num_streams: int = 1
    streams: str = "first"
    layout: str = "streams_first"
    offset: int = 0
    start_code: int | None = None
    stop_code: int | None = None
    pad_code: int | None = None

    def __post_init__(self) -> None:
        for name, choices in (("streams", STREAMS), ("layout", LAYOUTS)):
            if getattr(self, name) not in choices:
                raise UserError(f"codec.{name}={getattr(self, name)}: unknown. Choose one of {', '.join(choices)}.")

    @property
    def streams_kept(self) -> int:
        return 1 if self.streams == "first" else self.num_streams

    @property
    def num_ids(self) -> int:
        """The vocabulary of the ids."""
        return self.vocab_size * self.streams_kept

    @property
    def ids_per_second(self) -> float:
        return self.frame_rate * self.streams_kept

    def __call__(self, codes: Cell) -> tuple[np.ndarray, bool]:
        """Returns (S,) int32 ids, and whether the codes are finished: false if there is a `stop_code` that does not occur.

        Raises:
            ValueError: the codes have another shape, are not integers, or are outside of the vocabulary.
        """
        frames_TQ, finished = self._without_special(self._frames(codes))
        if not len(frames_TQ):
            raise ValueError("no codes")
        codes_TQ = frames_TQ[:, : self.streams_kept].astype(np.int64) - self.offset
        low, high = codes_TQ.min(), codes_TQ.max()
        if not 0 <= low <= high < self.vocab_size:
            outside = (low if low < 0 else high) + self.offset
            least, most = self.offset, self.offset + self.vocab_size - 1
            raise ValueError(f"code {outside} is outside of the vocabulary, which is {least} to {most}")
        stream_Q = np.arange(self.streams_kept)
        ids_S = (codes_TQ + stream_Q * self.vocab_size).ravel().astype(np.int32)
        if self.streams == "delay":
            step_TQ = np.arange(len(codes_TQ))[:, None] + stream_Q
            ids_S = ids_S[np.argsort((step_TQ * self.streams_kept + stream_Q).ravel())]
        return ids_S, finished

    def _frames(self, codes: Cell) -> np.ndarray:
        array = as_array(codes)
        if array.ndim == 1 and self.num_streams == 1:
            array = array[:, None]
        elif array.ndim == 2 and self.layout == "streams_first":
            array = array.T
        if array.ndim != 2 or array.shape[1] < self.num_streams:
            raise ValueError(f"codes of shape {array.shape} are not {self.num_streams} streams with {self.layout}")
        return array[:, : self.num_streams]

    def _without_special(self, frames_TQ: np.ndarray) -> tuple[np.ndarray, bool]:
        first_T, start, end, finished = frames_TQ[:, 0], 0, len(frames_TQ), True
        if self.start_code is not None and end and first_T[0] == self.start_code:
            start = 1
        if self.stop_code is not None:
            stops = np.flatnonzero(first_T == self.stop_code)
            end, finished = (int(stops[0]), True) if len(stops) else (end, False)
        if self.pad_code is not None:
            real = np.flatnonzero(first_T[:end] != self.pad_code)
            end = int(real[-1]) + 1 if len(real) else 0
        return frames_TQ[start:end], finished


def as_array(cell: Cell) -> np.ndarray:
    """A cell as an array of integers, without a copy where Arrow allows it. Raises ValueError."""
    if isinstance(cell, pa.ExtensionScalar):  # Array2D of `datasets`
        cell = cell.value
    if isinstance(cell, pa.Scalar):
        cell = _arrow_array(cell.values) if cell.is_valid and hasattr(cell, "values") else None
    if isinstance(cell, str):
        cell = [int(word) for word in cell.split()]
    if cell is None or len(cell) == 0:
        raise ValueError("no codes")
    try:
        array = np.asarray(cell)
    except ValueError:
        raise ValueError("streams of different lengths") from None
    if array.dtype.kind not in "iu":
        raise ValueError("codes that are not integers")
    return array


def _arrow_array(values: pa.Array) -> np.ndarray:
    if not hasattr(values.type, "value_type"):
        return values.to_numpy(zero_copy_only=False)
    if len(pc.unique(pc.list_value_length(values))) > 1:
        raise ValueError("streams of different lengths")
    return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)
