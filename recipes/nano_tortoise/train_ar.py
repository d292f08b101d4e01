"""Step 6: the nano AR: voice and text to DVAE codes.

    python train_ar.py --work work

Writes `work/ar.pt` (state dict) whenever the held-out loss is the lowest so far. Resumes an interrupted run from
`work/ar_last.pt`. The last clips are held out; their sentences occur nowhere else.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from train_dvae import CONFIG as DVAE
from train_dvae import HELD_OUT, SHIFTS, Features
from transformers import ClvpConfig, ClvpTokenizer

from clvp_train.tortoise.audio import CONDITIONING_SAMPLES, HOP_LENGTH
from clvp_train.tortoise.autoregressive import AutoRegressive

REFERENCE_FRAMES = CONDITIONING_SAMPLES // HOP_LENGTH + 1
SILENCE = math.log(1e-5)
ENCODER = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "projection_dim": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
}


def ar_config() -> ClvpConfig:
    """Composite configuration of the nano Tortoise; its CLVP encoders are placeholders without weights."""
    return ClvpConfig(
        text_config={**ENCODER, "vocab_size": 256},
        speech_config={**ENCODER, "vocab_size": DVAE.num_tokens},
        decoder_config={
            "vocab_size": DVAE.num_tokens + 2,
            "bos_token_id": DVAE.num_tokens,
            "eos_token_id": DVAE.num_tokens + 1,
            "hidden_size": 256,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_mel_attn_blocks": 2,
            "max_text_tokens": 96,
            "max_position_embeddings": 162,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attention_dropout": 0.0,
        },
    )


class Clips:
    """Token ids, codes and reference features of the clips."""

    def __init__(self, work: Path, config: ClvpConfig) -> None:
        self.features = Features(work)
        tokenizer = ClvpTokenizer.from_pretrained(work / "tortoise")
        self.shifted = [read_codes(work / f"codes_{shift}.npz") for shift in SHIFTS]
        self.codes = self.shifted[0]
        self.texts = [tokenizer(str(text))["input_ids"] for text in self.features.texts]
        limits = config.decoder_config.max_text_tokens - 3, config.decoder_config.max_position_embeddings - 2
        self.speakers = self.features.speakers
        fits = [
            len(text) <= limits[0] and len(ids) < limits[1] and not speaker.endswith("telephone")
            for text, ids, speaker in zip(self.texts, self.codes, self.speakers)
        ]
        split = len(self.codes) - HELD_OUT
        self.train = np.array([index for index in range(split) if fits[index]])
        self.held_out = np.array([index for index in range(split, len(self.codes)) if fits[index]])
        self.of_speaker = {speaker: self.train[self.speakers[self.train] == speaker] for speaker in set(self.speakers)}

    def reference(self, index: int) -> torch.Tensor:
        """(80, 517) features of a clip cut or padded with silence to 6 s."""
        mel = self.features.clip(index)[:, :REFERENCE_FRAMES]
        silence = torch.from_numpy(SILENCE / self.features.mel_norms).float()[:, None]
        return torch.cat([mel, silence.expand(-1, REFERENCE_FRAMES - mel.shape[1])], dim=1)

    def batches(self, indices: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Random batches of similar lengths: shuffled, sorted by length within groups of 16 batches."""
        shuffled = rng.permutation(indices)
        batches = []
        for start in range(0, len(shuffled), 16 * size):
            group = sorted(shuffled[start : start + 16 * size], key=lambda index: len(self.codes[index]))
            batches += [np.array(group[at : at + size]) for at in range(0, len(group), size)]
        return [batches[index] for index in rng.permutation(len(batches))]


def read_codes(path: Path) -> list[np.ndarray]:
    stored = np.load(path)
    return np.split(stored["codes"].astype(np.int64), stored["offsets"][1:-1])


@torch.no_grad()
def warm_start(model: AutoRegressive, codebook_CV: torch.Tensor) -> None:
    """Similar codes start with similar embeddings and logits: the codebook's entries fill a part of both matrices."""
    entries_VC = functional.normalize(codebook_CV - codebook_CV.mean(dim=1, keepdim=True), dim=0).T
    for weight, scale in ((model.speech_embedding.weight, 0.5), (model.head.weight, 0.5)):
        weight[: len(entries_VC), : entries_VC.shape[1]] = entries_VC * scale


def batch_loss(
    model: AutoRegressive, clips: Clips, rows: np.ndarray, rng: np.random.Generator, shifted: bool
) -> torch.Tensor:
    """Mean cross entropy per code, in nats. The rows of a speaker share a reference clip, sampled for the batch. `shifted`
    draws the alignment of each clip's codes."""
    speakers = sorted(set(clips.speakers[rows]))
    references = torch.stack([clips.reference(rng.choice(clips.of_speaker[speaker])) for speaker in speakers])
    latents = model.conditioning_encoder(references)
    chosen = torch.tensor([speakers.index(speaker) for speaker in clips.speakers[rows]])
    shifts = rng.integers(len(clips.shifted), size=len(rows)) if shifted else np.zeros(len(rows), dtype=int)
    targets = [clips.shifted[shift][row] for shift, row in zip(shifts, rows)]
    longest = max(len(ids) for ids in targets)
    codes = torch.full((len(rows), longest + 1), model.stop_speech)
    real = torch.zeros(len(rows), longest + 1, dtype=torch.bool)
    for position, ids in enumerate(targets):
        codes[position, : len(ids)] = torch.from_numpy(ids)
        real[position, : len(ids) + 1] = True
    logits = model(latents[chosen], [clips.texts[row] for row in rows], codes[:, :-1])
    return functional.cross_entropy(logits[real].float(), codes[real])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--steps", type=int, default=3400)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--evaluate-every", type=int, default=200)
    args = parser.parse_args()

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    config = ar_config()
    clips = Clips(args.work, config)
    model = AutoRegressive(config)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.02)
    warm_start(model, torch.load(args.work / "dvae.pt", weights_only=True)["state_dict"]["codebook.embed"])
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(clips.train)} clips", flush=True)
    # Muon (Jordan et al. 2024) on the matrices of the blocks, AdamW on the rest
    matrices = [parameter for parameter in model.blocks.parameters() if parameter.dim() == 2]
    others = [parameter for parameter in model.parameters() if not any(parameter is matrix for matrix in matrices)]
    optimizers = [
        torch.optim.Muon(matrices, lr=args.lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.95), weight_decay=0.05),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate(args.steps)) for optimizer in optimizers]
    step, best = 0, math.inf
    last = args.work / "ar_last.pt"
    if last.exists():
        saved = torch.load(last, weights_only=True)
        model.load_state_dict(saved["model"])
        for part, state in zip([*optimizers, *schedules], saved["parts"]):
            part.load_state_dict(state)
        step, best = saved["step"], saved["best"]
        rng = np.random.default_rng(step)
    started, losses = time.monotonic(), []
    while step < args.steps:
        for rows in clips.batches(clips.train, args.batch_size, rng):
            with torch.autocast("cpu", torch.bfloat16):
                loss = batch_loss(model, clips, rows, rng, shifted=True)
            model.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for part in [*optimizers, *schedules]:
                part.step()
            losses.append(loss.item())
            step += 1
            if step % 50 == 0:
                minutes = (time.monotonic() - started) / 60
                print(f"step {step}: train {np.mean(losses[-50:]):.3f}, {minutes:.1f} min", flush=True)
            if step % args.evaluate_every == 0 or step == args.steps:
                held_out = evaluate(model, clips)
                print(f"step {step}: held out {held_out:.3f} nats per code", flush=True)
                if held_out < best:
                    best = held_out
                    torch.save(model.state_dict(), args.work / "ar.pt")
                parts = [part.state_dict() for part in [*optimizers, *schedules]]
                torch.save({"model": model.state_dict(), "parts": parts, "step": step, "best": best}, last)
            if step == args.steps:
                break


def rate(steps: int) -> Callable[[int], float]:
    """Linear warm-up over 5% of the steps, then linear decay to 0."""
    return lambda step: min(1.0, (step + 1) / (0.05 * steps)) * (1 - step / steps)


@torch.no_grad()
def evaluate(model: AutoRegressive, clips: Clips) -> float:
    rng = np.random.default_rng(0)
    model.eval()
    with torch.autocast("cpu", torch.bfloat16):
        losses = [
            batch_loss(model, clips, rows, rng, shifted=False).item() for rows in clips.batches(clips.held_out, 64, rng)
        ]
    model.train()
    return float(np.mean(losses))


if __name__ == "__main__":
    main()
