"""Step 9: the DVAE codes of bundled sentences in about a hundred voices, as one Parquet file.

    python voices.py --work work --out ../../data/nano

The voices are the variants of `espeak-ng`, each with one of its English accents and one of three pitches, and those of
`recordings.parquet`. Writes `work/voices/*.wav` and `voices.parquet`: text, voice, speech_ids. Resumes an interrupted run.
"""

import argparse
import subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from recordings import BATCH_SIZE
from synthesise import VOICES
from tqdm import tqdm

from clvp_train.pairs.stored import CODEBOOK
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio

ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-us-nyc", "en-gb-x-rp")
PITCHES = (30, 50, 70)


def espeak_voices() -> dict[str, list[str]]:
    """The arguments of `espeak-ng` for each voice."""
    listed = subprocess.run(["espeak-ng", "--voices=variant"], check=True, capture_output=True, text=True).stdout
    variants = sorted(
        word.removeprefix("!v/") for line in listed.splitlines() for word in line.split() if "!v/" in word
    )
    return {
        variant: ["-v", f"{ACCENTS[index % len(ACCENTS)]}+{variant}", "-p", str(PITCHES[index % len(PITCHES)])]
        for index, variant in enumerate(variants)
    }


def make_clip(job: tuple[Path, str, list[str]]) -> None:
    path, text, arguments = job
    if not path.exists():
        partial = path.with_suffix(".partial")
        subprocess.run(["espeak-ng", *arguments, "-w", str(partial), text], check=True, capture_output=True)
        partial.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--out", type=Path, default=Path("../../data/nano"))
    parser.add_argument("--per-voice", type=int, default=30, help="sentences of each voice")
    parser.add_argument("--num-workers", type=int, default=2)
    args = parser.parse_args()

    folder = args.work / "voices"
    folder.mkdir(parents=True, exist_ok=True)
    texts = (args.out / "sentences.txt").read_text().splitlines()
    spoken = [(*voice, index) for voice in espeak_voices().items() for index in range(args.per_voice)]
    jobs = [
        (folder / f"{voice}-{index}.wav", text, arguments) for text, (voice, arguments, index) in zip(texts, spoken)
    ]
    tortoise, codes = FrozenTortoise.from_pretrained(args.out / "tortoise"), list[list[int]]()
    with ProcessPoolExecutor(args.num_workers) as pool:
        list(tqdm(pool.map(make_clip, jobs, chunksize=16), total=len(jobs)))
        for start in tqdm(range(0, len(jobs), BATCH_SIZE)):
            paths = [path for path, *_ in jobs[start : start + BATCH_SIZE]]
            codes += tortoise.speech_codes(list(pool.map(load_audio, paths, chunksize=16)))
    recordings = pq.read_table(args.out / "recordings.parquet")
    columns = {"text": [text for _, text, _ in jobs], "voice": [voice for voice, *_ in spoken]}
    table = pa.table(columns | {"speech_ids": pa.array(codes, recordings["speech_ids"].type)})
    for voice in dict.fromkeys(VOICES):
        table = pa.concat_tables(
            [table, recordings.filter(pc.equal(recordings["voice"], voice)).slice(0, args.per_voice)]
        )
    table = table.replace_schema_metadata({CODEBOOK: tortoise.dvae.codebook.digest()})
    pq.write_table(table, args.out / "voices.parquet", compression="zstd", compression_level=19)


if __name__ == "__main__":
    main()
