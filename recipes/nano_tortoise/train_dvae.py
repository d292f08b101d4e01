"""Step 4: the nano DVAE, a VQ-VAE with an exponential-moving-average codebook, on the features.

    python train_dvae.py --work work

Writes `work/dvae.pt` (config, state dict) and `work/codes.npz` (the codes of every clip). Unused entries are
re-initialised from the batch; otherwise most of the codebook stays unused.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from clvp_train.tortoise.dvae import Codebook, DiscreteVAE, DVAEConfig

DECAY = 0.99
COMMITMENT = 0.25
CONFIG = DVAEConfig(num_tokens=2048, codebook_dim=128, hidden_dim=128, num_res_blocks=3)
HELD_OUT = 512  # last clips, which neither the DVAE nor the AR is trained on
SHIFTS = range(4)  # frames per code: a clip has other codes for each alignment, which multiplies the AR's training data


class Features:
    """Random access to the clips' normalised features."""

    def __init__(self, work: Path) -> None:
        clips = np.load(work / "clips.npz")
        self.offsets, self.mel_norms = clips["offsets"], clips["mel_norms"]
        self.texts, self.speakers = clips["texts"], clips["speakers"]
        self.mels = np.load(work / "mels.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def clip(self, index: int) -> torch.Tensor:
        """(80, F) float32."""
        mel = self.mels[self.offsets[index] : self.offsets[index + 1]].astype(np.float32) / self.mel_norms
        return torch.from_numpy(mel.T.astype(np.float32))

    def windows(self, rng: np.random.Generator, count: int, length: int) -> torch.Tensor:
        """`count` random stretches of `length` frames: (count, 80, length) float32."""
        starts = rng.integers(0, self.offsets[-1 - HELD_OUT] - length, size=count)
        stacked = np.stack([self.mels[start : start + length] for start in starts]).astype(np.float32)
        return torch.from_numpy((stacked / self.mel_norms.astype(np.float32)).transpose(0, 2, 1).copy())


@torch.no_grad()
def update_codebook(codebook: Codebook, vectors_NC: torch.Tensor, ids_N: torch.Tensor) -> None:
    """Moves every entry to the running mean of its vectors; unused entries are replaced by vectors of the batch."""
    counts_V = torch.bincount(ids_N, minlength=codebook.embed.shape[1]).to(vectors_NC.dtype)
    sums_CV = torch.zeros_like(codebook.embed_avg).index_add_(1, ids_N, vectors_NC.T)
    codebook.cluster_size.lerp_(counts_V, 1 - DECAY)
    codebook.embed_avg.lerp_(sums_CV, 1 - DECAY)
    dead = (codebook.cluster_size < 0.1).nonzero().flatten()
    if len(dead):
        chosen = vectors_NC[torch.randint(len(vectors_NC), (len(dead),))].T
        codebook.embed_avg[:, dead] = chosen
        codebook.cluster_size[dead] = 1.0
    codebook.embed.copy_(codebook.embed_avg / codebook.cluster_size.clamp(min=1e-5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--window", type=int, default=128, help="frames")
    args = parser.parse_args()

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    features = Features(args.work)
    model = DiscreteVAE(CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=args.steps, pct_start=0.05)
    with torch.no_grad():  # start from real vectors
        first = features.windows(rng, 64, args.window)
        vectors = model.encode(first, torch.full((64,), args.window)).flatten(0, 1)
        model.codebook.embed_avg.copy_(vectors[torch.randperm(len(vectors))[: CONFIG.num_tokens]].T)
        model.codebook.cluster_size.fill_(1.0)
        model.codebook.embed.copy_(model.codebook.embed_avg)
    started, seen = time.monotonic(), torch.zeros(CONFIG.num_tokens, dtype=torch.bool)
    lengths = torch.full((args.batch_size,), args.window)
    for step in range(1, args.steps + 1):
        mel = features.windows(rng, args.batch_size, args.window)
        with torch.autocast("cpu", torch.bfloat16):
            vectors = model.encode(mel, lengths)
        vectors = vectors.float()
        ids = model.codebook(vectors)
        entries = model.codebook.lookup(ids)
        straight_through = vectors + (entries - vectors).detach()
        with torch.autocast("cpu", torch.bfloat16):
            decoded = model.decoder(straight_through.transpose(1, 2))
        reconstruction = functional.mse_loss(decoded.float(), mel)
        loss = reconstruction + COMMITMENT * functional.mse_loss(vectors, entries)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        update_codebook(model.codebook, vectors.detach().flatten(0, 1), ids.flatten())
        seen[ids.flatten()] = True
        if step % 200 == 0 or step == args.steps:
            minutes = (time.monotonic() - started) / 60
            print(f"step {step}: mse {reconstruction:.4f}, {int(seen.sum())} codes used, {minutes:.1f} min", flush=True)
            seen.zero_()
            torch.save({"config": CONFIG.to_dict(), "state_dict": model.state_dict()}, args.work / "dvae.pt")
    model.eval()
    for shift in SHIFTS:
        encode_all(model, features, shift, args.work / f"codes_{shift}.npz")


def encode_all(model: DiscreteVAE, features: Features, shift: int, path: Path) -> None:
    """Writes the codes of all clips without their first `shift` frames."""
    codes: list[np.ndarray] = []
    for start in range(0, len(features), 64):
        mels = [features.clip(index)[:, shift:] for index in range(start, min(start + 64, len(features)))]
        lengths = torch.tensor([mel.shape[1] for mel in mels])
        batch = torch.stack([functional.pad(mel, (0, int(lengths.max()) - mel.shape[1])) for mel in mels])
        codes.extend(ids.numpy().astype(np.int16) for ids in model.codes(batch, lengths))
    np.savez(path, codes=np.concatenate(codes), offsets=np.cumsum([0, *(len(ids) for ids in codes)]))
    used = len(np.unique(np.concatenate(codes)))
    print(f"{len(codes)} clips, {np.mean([len(ids) for ids in codes]):.1f} codes per clip, {used} codes used")


if __name__ == "__main__":
    main()
