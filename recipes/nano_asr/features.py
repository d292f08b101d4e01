"""Step 1: what the recogniser will hear: the recordings through Tortoise's DVAE and Griffin-Lim, as filter-bank features.

    python features.py --work work

Reads `work/audio/manifest.csv`, which `recipes/nano_tortoise/synthesise.py` wrote. Writes `work/heard.npy` (frames × 160,
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
AT_ONCE = 16


@cache
def tortoise() -> FrozenTortoise:
    torch.set_num_threads(1)
    return FrozenTortoise.from_pretrained(TORTOISE)


def features(paths: list[Path]) -> list[np.ndarray]:
    """(F, 160) of each clip, 50 frames a second."""
    codes = tortoise().speech_codes([load_audio(path) for path in paths])
    extractor = SeamlessM4TFeatureExtractor()
    clips = [
        torchaudio.functional.resample(clip, SAMPLE_RATE, extractor.sampling_rate).numpy()
        for clip in synthesize(tortoise(), codes)
    ]
    heard = extractor(clips, sampling_rate=extractor.sampling_rate, padding=True, return_tensors="np")
    lengths = heard["attention_mask"].sum(axis=1)
    return [one[:length].astype(np.float16) for one, length in zip(heard["input_features"], lengths)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--limit", type=int, help="clips at most")
    args = parser.parse_args()

    with (args.work / "audio" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[: args.limit]
    paths = [args.work / "audio" / row["audio"] for row in rows]
    batches = [paths[start : start + AT_ONCE] for start in range(0, len(paths), AT_ONCE)]
    found: list[np.ndarray] = []
    with ProcessPoolExecutor(args.num_workers) as pool:
        for batch in pool.map(features, batches):
            found += batch
            if len(found) % (AT_ONCE * 60) == 0 or len(found) == len(paths):
                print(f"{len(found)}/{len(paths)} clips", flush=True)
    np.save(args.work / "heard.npy", np.concatenate(found))
    offsets = np.cumsum([0, *(len(one) for one in found)])
    np.savez(args.work / "heard.npz", offsets=offsets, texts=np.array([text_key(row["text"]) for row in rows]))


if __name__ == "__main__":
    main()
