"""From speech codes to audio without Tortoise's diffusion decoder: mels by the DVAE, phases by Griffin-Lim. Intelligible, but
of low quality. Shapes: B clips, S codes, F mel frames, N samples."""

import io
from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby

import soundfile
import torch
from torchaudio.transforms import GriffinLim, InverseMelScale

from clvp_train.errors import UserError
from clvp_train.tortoise.audio import HOP_LENGTH, MEL, N_FFT, SAMPLE_RATE
from clvp_train.tortoise.frozen import FrozenTortoise

BATCH_SIZE = 32  # clips of one length


@torch.no_grad()
def synthesize(tortoise: FrozenTortoise, codes: Sequence[Sequence[int]], iterations: int = 32) -> list[torch.Tensor]:
    """Decodes code sequences; each result is the same as alone.

    Args:
        tortoise: must have a DVAE.
        codes: (S,) ids each.
        iterations: of Griffin-Lim.

    Returns:
        (N,) float32 samples each, 22 050 Hz, N = 256 · (4 S - 1).

    Raises:
        UserError: the Tortoise has no DVAE.
    """
    return _by_length(tortoise, codes, lambda mels_BMF: mels_to_audio(tortoise, mels_BMF, iterations))


def mp3(samples_N: torch.Tensor) -> bytes:
    """Returns audio of 22 050 Hz as an MP3 file, which every browser plays."""
    file = io.BytesIO()
    soundfile.write(file, samples_N.numpy(), SAMPLE_RATE, format="MP3")
    return file.getvalue()


@torch.no_grad()
def mels_to_audio(tortoise: FrozenTortoise, mels_BMF: torch.Tensor, iterations: int = 32) -> torch.Tensor:
    """Estimates phases by Griffin-Lim.

    Args:
        tortoise: with the `mel_norms` of the features.
        mels_BMF: (B, 80, F) log-mel features divided by `mel_norms`, on the device of the Tortoise.
        iterations: of Griffin-Lim.

    Returns:
        (B, N) float32 samples on the CPU, 22 050 Hz, N = 256 · (F - 1).
    """
    norms_M1 = torch.as_tensor(tortoise.feature_extractor.mel_norms, device=tortoise.device).float()[:, None]
    to_linear, to_samples = _inverse(tortoise.device, iterations)
    return to_samples(to_linear((mels_BMF * norms_M1).exp())).cpu()


@torch.no_grad()
def decode_mels(tortoise: FrozenTortoise, codes: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Decodes code sequences to log-mel features as the DVAE was trained on, divided by `mel_norms`; each result is the same as
    alone.

    Args:
        tortoise: must have a DVAE.
        codes: (S,) ids each.

    Returns:
        (80, F) features each on the device of the Tortoise, F = 4 S.

    Raises:
        UserError: the Tortoise has no DVAE.
    """
    return _by_length(tortoise, codes, lambda mels_BMF: mels_BMF)


def _by_length(
    tortoise: FrozenTortoise, codes: Sequence[Sequence[int]], convert: Callable[[torch.Tensor], torch.Tensor]
) -> list[torch.Tensor]:
    """Decodes sequences of equal length together, because padding would change them, and converts their (B, 80, F) mels."""
    if tortoise.dvae is None:
        raise UserError(f"{tortoise.source}: no DVAE, which decodes codes to audio. Use a Tortoise that has one.")
    results: dict[int, torch.Tensor] = {}
    order = sorted(range(len(codes)), key=lambda row: len(codes[row]))
    for _, group in groupby(order, key=lambda row: len(codes[row])):
        rows = list(group)
        for start in range(0, len(rows), BATCH_SIZE):
            batch = rows[start : start + BATCH_SIZE]
            codes_BS = torch.tensor([list(codes[row]) for row in batch], device=tortoise.device)
            results |= dict(zip(batch, convert(tortoise.dvae.decode(codes_BS))))
    return [results[row] for row in range(len(codes))]


@cache
def _inverse(device: torch.device, iterations: int) -> tuple[InverseMelScale, GriffinLim]:
    to_linear = InverseMelScale(n_stft=N_FFT // 2 + 1, **MEL)
    # initial phases of zero make the result deterministic
    to_samples = GriffinLim(n_fft=N_FFT, hop_length=HOP_LENGTH, n_iter=iterations, power=2.0, rand_init=False)
    return to_linear.to(device), to_samples.to(device)
