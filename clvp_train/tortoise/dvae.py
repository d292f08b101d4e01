"""Tortoise's discrete VAE: from log-mel features to speech codes and back.

The published weights were trained as `lucidrains_dvae` in DL-Art-School; the order of the layers gives the same state-dict
keys. Imports torch and safetensors only: together with `processing_clvp.py` this file is uploaded to the Hub as remote code.

Shapes: B batch, M mel channels, F mel frames, S codes (S = ceil(F / 4)), C channels, V codebook entries.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

DVAE_FOLDER = "dvae"  # in the folder of a Tortoise or of a model
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


@dataclass(frozen=True)
class DVAEConfig:
    """Architecture of a DVAE; the defaults are those of Tortoise's published one."""

    num_mels: int = 80
    num_tokens: int = 8192  # codebook entries
    codebook_dim: int = 512
    hidden_dim: int = 512  # channels after the first convolution; each further strided one doubles them
    num_layers: int = 2  # convolutions of stride 2
    num_res_blocks: int = 3
    kernel_size: int = 3

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


class ResBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, x_BCF: torch.Tensor, mask_B1F: torch.Tensor | None = None) -> torch.Tensor:
        inner = x_BCF
        for layer in self.net:
            inner = layer(inner)
            inner = inner if mask_B1F is None else inner * mask_B1F
        return x_BCF + inner


class UpsampledConv(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, padding=(kernel_size - 1) // 2)

    def forward(self, x_BCF: torch.Tensor) -> torch.Tensor:
        return self.conv(functional.interpolate(x_BCF, scale_factor=2, mode="nearest"))


class Codebook(nn.Module):
    """Nearest-neighbour quantiser. The buffers hold the entries and, for training, their exponential moving averages."""

    embed: torch.Tensor
    cluster_size: torch.Tensor
    embed_avg: torch.Tensor

    def __init__(self, dim: int, num_tokens: int) -> None:
        super().__init__()
        self.register_buffer("embed", torch.randn(dim, num_tokens))
        self.register_buffer("cluster_size", torch.zeros(num_tokens))
        self.register_buffer("embed_avg", self.embed.clone())

    def forward(self, x_BSC: torch.Tensor) -> torch.Tensor:
        """(B, S, C) to the (B, S) indices of the nearest entries."""
        # |x - e|² without |x|², which is equal for all entries
        return (self.embed.square().sum(dim=0) - 2 * x_BSC @ self.embed).argmin(dim=-1)

    def lookup(self, codes_BS: torch.Tensor) -> torch.Tensor:
        return functional.embedding(codes_BS, self.embed.T)

    def digest(self) -> str:
        """Hex digest of the entries, which give codes their meaning."""
        return hashlib.sha256(self.embed.float().cpu().numpy().tobytes()).hexdigest()


class DiscreteVAE(nn.Module):
    """From mel features to codes and back (Ramesh et al. 2021; the layers are those of DL-Art-School's
    `lucidrains_dvae.py`)."""

    def __init__(self, config: DVAEConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.hidden_dim * 2**layer for layer in range(config.num_layers)]
        widest, kernel, padding = widths[-1], config.kernel_size, (config.kernel_size - 1) // 2
        self.encoder = nn.Sequential(
            *(
                nn.Sequential(nn.Conv1d(narrow, wide, kernel, stride=2, padding=padding), nn.ReLU())
                for narrow, wide in pairwise([config.num_mels, *widths])
            ),
            *(ResBlock(widest) for _ in range(config.num_res_blocks)),
            nn.Conv1d(widest, config.codebook_dim, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv1d(config.codebook_dim, widest, 1),
            *(ResBlock(widest) for _ in range(config.num_res_blocks)),
            *(
                nn.Sequential(UpsampledConv(wide, narrow, kernel), nn.ReLU())
                for wide, narrow in pairwise([widest, *reversed(widths)])
            ),
            nn.Conv1d(widths[0], config.num_mels, 1),
        )
        self.codebook = Codebook(config.codebook_dim, config.num_tokens)

    def save_pretrained(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        """Writes config.json and model.safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(json.dumps(self.config.to_dict(), indent=2) + "\n")
        weights = {key: tensor.to(dtype).contiguous() for key, tensor in self.state_dict().items()}
        save_file(weights, folder / WEIGHTS_FILE, {"format": "pt"})

    @classmethod
    def from_files(cls, config: Path, weights: Path) -> "DiscreteVAE":
        """Reads the files of `save_pretrained`. In eval mode."""
        dvae = cls(DVAEConfig(**json.loads(config.read_text())))
        dvae.load_state_dict(load_file(weights))
        return dvae.eval().requires_grad_(False)

    def num_codes(self, num_frames: torch.Tensor) -> torch.Tensor:
        """Number of codes for each number of mel frames."""
        for _ in range(self.config.num_layers):
            num_frames = (num_frames + 1) // 2
        return num_frames

    def encode(self, mel_BMF: torch.Tensor, num_frames_B: torch.Tensor) -> torch.Tensor:
        """Returns the continuous (B, S, C) vectors before quantisation.

        Beyond the end of a clip every layer sees zeros, as it would for the clip alone, so padding changes nothing.
        """
        x, lengths = mel_BMF, num_frames_B
        x = x * _mask(lengths, x.shape[-1])
        for layer in self.encoder:
            if isinstance(layer, ResBlock):
                x = layer(x, _mask(lengths, x.shape[-1]))
            else:
                lengths = (lengths + 1) // 2 if isinstance(layer, nn.Sequential) else lengths
                x = layer(x)
                x = x * _mask(lengths, x.shape[-1])
        return x.transpose(1, 2)

    @torch.no_grad()
    def codes(self, mel_BMF: torch.Tensor, num_frames_B: torch.Tensor) -> list[torch.Tensor]:
        """Speech codes of a padded batch of (B, 80, F) features: one tensor of `num_codes` ids per clip."""
        ids_BS = self.codebook(self.encode(mel_BMF, num_frames_B))
        return [ids[:length] for ids, length in zip(ids_BS, self.num_codes(num_frames_B).tolist())]

    def decode(self, codes_BS: torch.Tensor) -> torch.Tensor:
        """(B, S) codes to (B, 80, 4 S) mel features."""
        return self.decoder(self.codebook.lookup(codes_BS).transpose(1, 2))


def _mask(lengths_B: torch.Tensor, size: int) -> torch.Tensor:
    return (torch.arange(size, device=lengths_B.device) < lengths_B[:, None])[:, None]
