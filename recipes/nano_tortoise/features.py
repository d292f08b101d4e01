"""Step 3: log-mel features of all clips in one memory-mapped file.

    python features.py --work work

Writes `work/mels.npy` (frames × 80, float16) and `work/clips.npz` (offsets, texts, speakers, mel_norms).
"""

import argparse
import csv
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from clvp_train.tortoise.audio import NUM_MELS, load_audio, log_mel


def clip_features(path: Path) -> np.ndarray:
    torch.set_num_threads(1)
    return log_mel(load_audio(path)).T.numpy().astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--num-workers", type=int, default=2)
    args = parser.parse_args()

    with (args.work / "audio" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    paths = [args.work / "audio" / row["audio"] for row in rows]
    with ProcessPoolExecutor(args.num_workers) as pool:
        mels = []
        for mel in pool.map(clip_features, paths, chunksize=64):
            mels.append(mel)
            if len(mels) % 2000 == 0:
                print(f"{len(mels)}/{len(paths)} clips", flush=True)
    offsets = np.cumsum([0, *(len(mel) for mel in mels)])
    every = np.concatenate(mels)
    np.save(args.work / "mels.npy", every)
    mel_norms = np.sqrt(np.square(every[:: max(1, len(every) // 100_000)].astype(np.float64)).mean(axis=0))
    assert mel_norms.shape == (NUM_MELS,)
    np.savez(
        args.work / "clips.npz",
        offsets=offsets,
        texts=np.array([row["text"] for row in rows]),
        speakers=np.array([row["speaker"] for row in rows]),
        mel_norms=mel_norms,
    )
    print(f"{len(mels)} clips, {offsets[-1] * 256 / 22050 / 3600:.1f} hours")


if __name__ == "__main__":
    main()
