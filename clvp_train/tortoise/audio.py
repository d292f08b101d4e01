"""Reads recordings and computes the log-mel features of Tortoise's conditioning encoder and DVAE.

Shapes: N samples, F mel frames, M mel channels.
"""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

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


def load_audio(source: Path | str | bytes, name: str | None = None) -> torch.Tensor:
    """Reads wav, flac, ogg or mp3 and resamples it to 22 050 Hz mono.

    Args:
        source: a path, or the bytes of an audio file.
        name: the name of the clip in errors (default: its path).

    Returns:
        (N,) float32 samples in [-1, 1].

    Raises:
        UserError: the file is missing, unreadable or too short for a mel frame.
    """
    name = name or ("<bytes>" if isinstance(source, bytes) else str(source))
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except FileNotFoundError:
        raise UserError(f"audio file {name}: not found. Correct its path in the corpus, or remove the row.") from None
    except (soundfile.LibsndfileError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.error_string.rstrip(".")
        raise UserError(
            f"audio file {name}: cannot be read ({reason}). Replace it with a wav, flac, ogg or mp3 file."
        ) from None
    seconds = len(samples) / rate
    if seconds < MIN_SECONDS:
        raise UserError(f"audio file {name}: too short ({seconds * 1000:.0f} ms). Remove it from the corpus.")
    # resampling overshoots; tortoise-tts clips as well
    return torchaudio.functional.resample(torch.from_numpy(samples).mean(dim=1), rate, SAMPLE_RATE).clamp(-1.0, 1.0)


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
