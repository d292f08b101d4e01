"""Step 8: the DVAE codes of recordings of the bundled sentences, as one Parquet file.

    python recordings.py --work work --out ../../data/nano

Reads `work/recordings` and `work/recordings_eval` of `synthesise.py` and the exported Tortoise. Writes `recordings.parquet`:
text, voice, speech_ids.
"""

import argparse
import csv
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from clvp_train.pairs.stored import CODEBOOK
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio

BATCH_SIZE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--out", type=Path, default=Path("../../data/nano"))
    parser.add_argument("--num-workers", type=int, default=2)
    args = parser.parse_args()

    rows: dict[tuple[str, str], Path] = {}  # the second folder repeats some voices of the first
    for name in ("recordings", "recordings_eval"):
        with (args.work / name / "manifest.csv").open(newline="") as file:
            rows |= {(row["text"], row["speaker"]): args.work / name / row["audio"] for row in csv.DictReader(file)}
    tortoise = FrozenTortoise.from_pretrained(args.out / "tortoise")
    paths, codes = list(rows.values()), list[list[int]]()
    with ProcessPoolExecutor(args.num_workers) as pool:
        for start in tqdm(range(0, len(paths), BATCH_SIZE)):
            clips = list(pool.map(load_audio, paths[start : start + BATCH_SIZE], chunksize=16))
            codes += tortoise.speech_codes(clips)
    columns = {"text": [text for text, _ in rows], "voice": [voice for _, voice in rows]}
    table = pa.table(columns | {"speech_ids": pa.array(codes, pa.list_(pa.int16()))}).sort_by("text")
    table = table.replace_schema_metadata({CODEBOOK: tortoise.dvae.codebook.digest()})
    pq.write_table(table, args.out / "recordings.parquet", compression="zstd", compression_level=19)


if __name__ == "__main__":
    main()
