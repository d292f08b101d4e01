"""Step 1: filter-bank features of the recordings after encoding and decoding with Tortoise's DVAE and Griffin-Lim.

    python features.py --work work

Reads `work/audio/manifest.csv` of `recipes/nano_tortoise/synthesise.py`. Writes `work/heard.npy` (frames × 160,
float16), `work/heard.npz` (offsets, texts). Takes 20 minutes on two cores.
"""

import argparse
import csv
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torchaudio
from transformers import SeamlessM4TFeatureExtractor

from clvp_train.corpus import text_key
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import SAMPLE_RATE, load_audio
from clvp_train.tortoise.vocoder import synthesize

TORTOISE = Path(__file__).parents[2] / "data" / "nano" / "tortoise"
BATCH_SIZE = 16


@cache
def tortoise() -> FrozenTortoise:
    torch.set_num_threads(1)
    return FrozenTortoise.from_pretrained(TORTOISE)


def features(paths: list[Path]) -> list[np.ndarray]:
    """(F, 160) features of each clip, 50 frames per second."""
    codes = tortoise().speech_codes([load_audio(path) for path in paths])
    extractor = SeamlessM4TFeatureExtractor()
    clips = [
        torchaudio.functional.resample(clip, SAMPLE_RATE, extractor.sampling_rate).numpy()
        for clip in synthesize(tortoise(), codes)
    ]
    batch = extractor(clips, sampling_rate=extractor.sampling_rate, padding=True, return_tensors="np")
    lengths = batch["attention_mask"].sum(axis=1)
    return [clip[:length].astype(np.float16) for clip, length in zip(batch["input_features"], lengths)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--limit", type=int, help="maximum number of clips")
    args = parser.parse_args()

    with (args.work / "audio" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[: args.limit]
    paths = [args.work / "audio" / row["audio"] for row in rows]
    batches = [paths[start : start + BATCH_SIZE] for start in range(0, len(paths), BATCH_SIZE)]
    clips: list[np.ndarray] = []
    with ProcessPoolExecutor(args.num_workers) as pool:
        for batch in pool.map(features, batches):
            clips += batch
            if len(clips) % (BATCH_SIZE * 60) == 0 or len(clips) == len(paths):
                print(f"{len(clips)}/{len(paths)} clips", flush=True)
    np.save(args.work / "heard.npy", np.concatenate(clips))
    offsets = np.cumsum([0, *(len(clip) for clip in clips)])
    np.savez(args.work / "heard.npz", offsets=offsets, texts=np.array([text_key(row["text"]) for row in rows]))


if __name__ == "__main__":
    main()
