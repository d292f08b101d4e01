"""Reads recordings and computes the log-mel features of Tortoise's conditioning encoder and DVAE.

Shapes: N samples, C channels, F mel frames, M mel channels.
"""

import io
import logging
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio

from clvp_train.errors import UserError

SAMPLE_RATE = 22_050
HOP_LENGTH = 256
N_FFT = 1024
NUM_MELS = 80
MEL: dict[str, Any] = {"sample_rate": SAMPLE_RATE, "n_mels": NUM_MELS, "f_min": 0.0, "f_max": 8000.0}
MEL |= {"norm": "slaney", "mel_scale": "htk"}
MIN_SECONDS = 0.03  # the first mel frame mirrors half a window of samples
CONDITIONING_SAMPLES = 132_300  # 6 s, the length to which tortoise-tts cuts or pads a reference clip
SAMPLE_RATES = range(4000, 384_001)  # telephone bands to studio recordings; outside, the header is wrong
MAX_PEAK = 8.0  # of float samples: 18 dB above full scale happens, integers stored as floats are far above
SILENT_SWING = 2e-3  # between the lowest and the highest sample: -60 dB of full scale, 5 bits of 16
CANCELLED = 0.2  # the mean of channels in antiphase, relative to the loudest of them
MISSING_SHARE, MISSING_SECONDS = 0.02, 0.1  # both exceeded: cut short. MP3 headers are off by some frames
# libsndfile's log of a container whose header announces more bytes than there are; RIFF alone may be off by its last chunks
DECLARED = re.compile(r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_SIZE = 0x7FFF0000  # and above: placeholders of programs that write to a pipe
log = logging.getLogger(__name__)


def load_audio(
    source: Path | str | bytes, name: str | None = None, warn: Callable[[str], None] = log.warning
) -> torch.Tensor:
    """Reads a recording in any format of libsndfile, whatever its suffix, and resamples it to 22 050 Hz mono.

    Channels are averaged; silent ones are left out, and of channels in antiphase, which would cancel, only the loudest is used.

    Args:
        source: a path, or the bytes of an audio file.
        name: the name of the clip in errors (default: its path).
        warn: receives a message if channels were left out.

    Returns:
        (N,) float32 samples in [-1, 1].

    Raises:
        UserError: the file is missing, unreadable, cut short, silent, or too short for a mel frame, or its samples or sample
            rate are not those of a recording.
    """
    name = name or ("<bytes>" if isinstance(source, bytes) else str(source))
    samples_NC, rate, declared, header = _read(source, name)
    if rate not in SAMPLE_RATES:
        raise UserError(
            f"audio file {name}: has a sample rate of {rate} Hz. Correct its header, or remove it from the corpus."
        )
    if problem := _cut_short(len(samples_NC), declared, rate, header):
        raise UserError(f"audio file {name}: cut short ({problem}). Copy it again, or remove it from the corpus.")
    seconds = len(samples_NC) / rate
    if seconds < MIN_SECONDS:
        raise UserError(f"audio file {name}: too short ({seconds * 1000:.0f} ms). Remove it from the corpus.")
    samples_N = _mono(samples_NC, name, warn)
    # resampling overshoots; tortoise-tts clips as well
    return torchaudio.functional.resample(samples_N, rate, SAMPLE_RATE).clamp(-1.0, 1.0)


def _read(source: Path | str | bytes, name: str) -> tuple[np.ndarray, int, int, str]:
    """(N, C) samples, their rate, and of the header the number of samples and libsndfile's log."""
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, declared, header = file.samplerate, file.frames, file.extra_info
            return file.read(dtype="float32", always_2d=True), rate, declared, header
    except FileNotFoundError:
        raise UserError(f"audio file {name}: not found. Correct its path in the corpus, or remove the row.") from None
    except (soundfile.LibsndfileError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.error_string.rstrip(".")
        raise UserError(
            f"audio file {name}: cannot be read ({reason}). Replace it with a wav, flac, ogg, opus or mp3 file."
        ) from None


def audio_seconds(source: Path | str | bytes | None) -> float:
    """The duration from a file's header; 0 if it cannot be read, which `load_audio` reports."""
    try:
        info = soundfile.info(io.BytesIO(source) if isinstance(source, bytes) else source)
    except (soundfile.LibsndfileError, OSError, TypeError):
        return 0.0
    return info.duration if info.samplerate in SAMPLE_RATES else 0.0


def _cut_short(num_samples: int, declared: int, rate: int, header: str) -> str:
    """What is missing of a file; "" if nothing is.

    Args:
        num_samples: that were read.
        declared: number of samples in the header, which libsndfile corrects if it sees that the file is shorter.
        rate: samples per second.
        header: libsndfile's log of the header.
    """
    for size, actual in DECLARED.findall(header):
        if 0 < int(actual) < int(size) < UNKNOWN_SIZE:
            declared = max(declared, num_samples * int(size) // int(actual))
    missing = declared - num_samples
    if missing <= MISSING_SHARE * declared or missing <= MISSING_SECONDS * rate:
        return ""
    return f"{num_samples / rate:.2f} s instead of {declared / rate:.2f} s"


def _mono(samples_NC: np.ndarray, name: str, warn: Callable[[str], None]) -> torch.Tensor:
    """The mean of the channels that carry the recording. Raises UserError if there is none."""
    channels_CN = np.ascontiguousarray(samples_NC.T)  # the extremes of a column would take many times as long
    low_C, high_C = channels_CN.min(axis=1), channels_CN.max(axis=1)
    if not (np.isfinite(low_C).all() and np.isfinite(high_C).all()):
        raise UserError(
            f"audio file {name}: contains NaN or infinite samples. Export it again, or remove it from the corpus."
        )
    if (peak := max(high_C.max(), -low_C.min())) > MAX_PEAK:
        raise UserError(
            f"audio file {name}: has samples up to {peak:.0f}, but full scale is 1. Scale it to [-1, 1], or remove it."
        )
    is_live_C = high_C - low_C >= SILENT_SWING
    if not is_live_C.any():
        raise UserError(f"audio file {name}: is silent. Remove it from the corpus.")
    if not is_live_C.all():
        silent = ", ".join(str(channel + 1) for channel in np.flatnonzero(~is_live_C))
        warn(f"audio file {name}: silent channels left out ({silent})")
        channels_CN, samples_NC = channels_CN[is_live_C], np.ascontiguousarray(samples_NC[:, is_live_C])
    samples_N = torch.from_numpy(samples_NC).mean(dim=1)
    if len(channels_CN) > 1:
        level_C = channels_CN.std(axis=1)
        if samples_N.std() < CANCELLED * level_C.max():
            warn(f"audio file {name}: channels in antiphase, one used")
            samples_N = torch.from_numpy(channels_CN[level_C.argmax()])
    return samples_N


@cache
def _mel_transform(device: torch.device) -> torchaudio.transforms.MelSpectrogram:
    return torchaudio.transforms.MelSpectrogram(n_fft=N_FFT, hop_length=HOP_LENGTH, power=2.0, **MEL).to(device)


def log_mel(samples_N: torch.Tensor, mel_norms: Sequence[float] | torch.Tensor | None = None) -> torch.Tensor:
    """(…, N) samples to (…, 80, F) features, F = N // 256 + 1, like tortoise-tts' `TorchMelSpectrogram`.

    Args:
        samples_N: 22 050 Hz samples in [-1, 1].
        mel_norms: 80 divisors, one per channel; None: no division.
    """
    features = torch.log(_mel_transform(samples_N.device)(samples_N).clamp(min=1e-5))
    if mel_norms is not None:
        features = features / torch.as_tensor(mel_norms, device=features.device, dtype=features.dtype)[:, None]
    return features


def fit_length(samples_N: torch.Tensor, length: int = CONDITIONING_SAMPLES) -> torch.Tensor:
    """Cuts a reference clip to its first `length` samples, or pads it with silence.

    tortoise-tts cuts at a random position; here a voice always has the same conditioning latent.
    """
    return torch.nn.functional.pad(samples_N[..., :length], (0, max(0, length - samples_N.shape[-1])))
