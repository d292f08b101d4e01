"""Speech recognition models: of transformers, or Whisper in CTranslate2's format. Shapes: N samples."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio
import transformers

from clvp_train.errors import UserError
from clvp_train.io.digests import file_digest
from clvp_train.tortoise.audio import SAMPLE_RATE

BATCH_SIZE = 16  # clips that a model transcribes at once
WHISPER_RATE, COMPUTE_TYPE = 16_000, "int8"  # Hz; the type of the weights, the same on every device
# greedy decoding of unclear speech can fall into a loop: nobody says more tokens per second, and Whisper has 224 per transcript
TOKENS_PER_SECOND, MAX_TOKENS = 10, 224
LOADING_ERRORS = (OSError, ValueError, KeyError, ImportError, TypeError, RuntimeError)  # of the libraries
Transcribe = Callable[[Sequence[torch.Tensor]], list[str]]


class Recognizer(ABC):
    """A speech recognition model that is opened when it is needed.

    Args:
        asr: the setting `rerank.asr`.

    Raises:
        UserError: there is no such model. No weights are loaded yet.
    """

    def __init__(self, asr: str) -> None:
        self.asr = asr

    @abstractmethod
    def fingerprint(self) -> str:
        """What determines the transcripts. Raises UserError if the model cannot be downloaded."""

    @abstractmethod
    def open(self, device: torch.device) -> Transcribe:
        """Returns a function that transcribes clips, (N,) samples at 22 050 Hz each. Raises UserError if that is impossible."""

    def _cannot_open(self, error: Exception) -> UserError:
        reason = " ".join(str(error).split())[:300]
        return UserError(
            f"rerank.asr={self.asr}: cannot be opened as a speech recognition model ({reason}). Set it to a folder or Hub id "
            "of one that transformers supports, to a folder of Whisper in CTranslate2's format, or to a size such as base.en."
        )


def find_recognizer(asr: str) -> Recognizer:
    """Returns the model that `rerank.asr` names: a folder with `model.bin` and `vocabulary.*`, or a size of Whisper, for
    faster-whisper; any other folder and a Hub id for transformers.

    Raises:
        UserError: there is no such model, or faster-whisper is needed and not installed.
    """
    folder = Path(asr).expanduser()
    is_converted = (folder / "model.bin").is_file() and any(folder.glob("vocabulary.*"))
    is_size = not folder.exists() and "/" not in str(asr)
    return FasterWhisper(str(asr)) if is_converted or is_size else TransformersModel(str(asr))


class TransformersModel(Recognizer):
    """A speech recognition model of transformers, a folder or Hub id."""

    def __init__(self, asr: str) -> None:
        super().__init__(asr)
        try:
            self._commit = getattr(transformers.AutoConfig.from_pretrained(asr), "_commit_hash", None)
        except LOADING_ERRORS as error:
            raise self._cannot_open(error) from None

    def fingerprint(self) -> str:
        folder = Path(self.asr).expanduser()
        weights = _folder_digest(folder) if folder.is_dir() else f"{self.asr} {self._commit}"
        return f"{TOKENS_PER_SECOND} {weights}"

    def open(self, device: torch.device) -> Transcribe:
        try:
            pipeline: Any = transformers.pipeline(
                "automatic-speech-recognition", model=self.asr, device=device, dtype=torch.float32
            )
        except LOADING_ERRORS as error:
            raise self._cannot_open(error) from None

        def transcribe(clips: Sequence[torch.Tensor]) -> list[str]:
            inputs = [{"raw": clip.numpy(), "sampling_rate": SAMPLE_RATE} for clip in clips]
            options = (
                {"generate_kwargs": {"max_new_tokens": _max_tokens(clips)}} if pipeline.model.can_generate() else {}
            )
            return [result["text"] for result in pipeline(inputs, batch_size=BATCH_SIZE, **options)]

        return transcribe


class FasterWhisper(Recognizer):
    """Whisper in CTranslate2's format, a folder or a size, through faster-whisper. Decoding is greedy."""

    def __init__(self, asr: str) -> None:
        super().__init__(asr)
        try:
            import faster_whisper
        except ImportError as error:
            raise UserError(
                f'rerank.asr={asr}: needs faster-whisper ({error}). Run pip install "clvp-train[asr]", or set it to a '
                "folder or Hub id of a model that transformers supports."
            ) from None
        self._library: Any = faster_whisper
        if not Path(asr).expanduser().is_dir() and asr not in faster_whisper.available_models():
            raise self._cannot_open(ValueError("neither a folder nor a size of Whisper"))

    def fingerprint(self) -> str:
        return f"faster-whisper {COMPUTE_TYPE} {TOKENS_PER_SECOND} {_folder_digest(self._folder())}"

    def open(self, device: torch.device) -> Transcribe:
        folder, threads = self._folder(), torch.get_num_threads()
        try:
            model = self._library.WhisperModel(
                str(folder), device.type, device.index or 0, compute_type=COMPUTE_TYPE, cpu_threads=threads
            )
        except LOADING_ERRORS as error:
            raise self._cannot_open(error) from None
        pipeline = self._library.BatchedInferencePipeline(model)
        options = {"beam_size": 1, "batch_size": BATCH_SIZE, "vad_filter": False}
        options["multilingual"] = model.model.is_multilingual  # the language of every clip, not of the first one

        def transcribe(clips: Sequence[torch.Tensor]) -> list[str]:
            # the pipeline batches the parts of one recording; in parts of complete seconds it reports their exact starts
            samples = [_in_complete_seconds(clip) for clip in clips]
            seconds = np.cumsum([0, *(len(clip) // WHISPER_RATE for clip in samples)]).tolist()
            parts = [{"start": start, "end": end} for start, end in zip(seconds, seconds[1:])]
            segments, _ = pipeline.transcribe(
                np.concatenate(samples), clip_timestamps=parts, max_new_tokens=_max_tokens(clips), **options
            )
            texts = dict.fromkeys(seconds[:-1], "")
            for segment in segments:
                texts[segment.seek // model.frames_per_second] += segment.text
            return list(texts.values())

        return transcribe

    def _folder(self) -> Path:
        folder = Path(self.asr).expanduser()
        try:
            return folder if folder.is_dir() else Path(self._library.download_model(self.asr))
        except LOADING_ERRORS as error:
            raise self._cannot_open(error) from None


def _max_tokens(clips: Sequence[torch.Tensor]) -> int:
    """The length of a transcript that the longest of the clips can have."""
    seconds = max(map(len, clips)) / SAMPLE_RATE
    return min(MAX_TOKENS, 1 + int(TOKENS_PER_SECOND * seconds))


def _in_complete_seconds(clip_N: torch.Tensor) -> np.ndarray:
    """A clip at Whisper's rate, padded with silence."""
    samples_N = torchaudio.functional.resample(clip_N, SAMPLE_RATE, WHISPER_RATE)
    return torch.nn.functional.pad(samples_N, (0, -len(samples_N) % WHISPER_RATE)).numpy()


def _folder_digest(folder: Path) -> str:
    files = sorted(file for file in folder.iterdir() if file.is_file() and not re.match(r"\.|README", file.name))
    return hashlib.sha256("\n".join(f"{file.name} {file_digest(file)}" for file in files).encode()).hexdigest()
