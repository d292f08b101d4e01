"""Speech codes to sound without Tortoise's diffusion decoder: the DVAE's mels, and phases by Griffin-Lim. Enough to be
understood, not to be enjoyed. Shapes: B clips, S codes, F mel frames, N samples."""

from collections.abc import Sequence
from functools import cache
from itertools import groupby

import torch
from torchaudio.transforms import GriffinLim, InverseMelScale

from clvp_train.errors import UserError
from clvp_train.tortoise.audio import HOP_LENGTH, MEL, N_FFT
from clvp_train.tortoise.frozen import FrozenTortoise

AT_ONCE = 32  # clips of one length


@torch.no_grad()
def synthesize(tortoise: FrozenTortoise, codes: Sequence[Sequence[int]], iterations: int = 32) -> list[torch.Tensor]:
    """Decodes codes one by one as if each were alone, in any order.

    Args:
        tortoise: with a DVAE.
        codes: (S,) each.
        iterations: of Griffin-Lim.

    Returns:
        (N,) float32 samples each, 22 050 Hz, N = 256 · (4 S - 1).

    Raises:
        UserError: this Tortoise has no DVAE.
    """
    if tortoise.dvae is None:
        raise UserError(f"{tortoise.source} has no DVAE, so its codes cannot be made audible: use one that has")
    norms_M1 = torch.as_tensor(tortoise.feature_extractor.mel_norms, device=tortoise.device).float()[:, None]
    to_linear, to_samples = _inverse(tortoise.device, iterations)
    found: dict[int, torch.Tensor] = {}
    order = sorted(range(len(codes)), key=lambda row: len(codes[row]))
    for _, group in groupby(order, key=lambda row: len(codes[row])):
        rows = list(group)
        for start in range(0, len(rows), AT_ONCE):
            batch = rows[start : start + AT_ONCE]
            codes_BS = torch.tensor([list(codes[row]) for row in batch], device=tortoise.device)
            mels_BMF = (tortoise.dvae.decode(codes_BS) * norms_M1).exp()
            found |= dict(zip(batch, to_samples(to_linear(mels_BMF)).cpu()))
    return [found[row] for row in range(len(codes))]


@cache
def _inverse(device: torch.device, iterations: int) -> tuple[InverseMelScale, GriffinLim]:
    to_linear = InverseMelScale(n_stft=N_FFT // 2 + 1, **MEL)
    # phases from zero: the same codes, the same sound
    to_samples = GriffinLim(n_fft=N_FFT, hop_length=HOP_LENGTH, n_iter=iterations, power=2.0, rand_init=False)
    return to_linear.to(device), to_samples.to(device)
