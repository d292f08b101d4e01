"""The start of a run on a large corpus: planning, and opening pairs of which only the sizes are real.

    python benchmarks/scale.py plan --utterances 1000000
    python benchmarks/scale.py open --utterances 1000000 --shards 22000
    python benchmarks/scale.py test-split --utterances 1000000
    python benchmarks/scale.py epoch --utterances 1000000 --cache-gb 0.1

Run it with PYTHONPATH set to the version to be measured. Prints seconds, those of the processor (which other processes
affect less), and the memory that the step has added, in MB.
"""

import argparse
import gc
import hashlib
import tempfile
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clvp_train.corpus import TextLines, split_of
from clvp_train.data import CLVPDataModule
from clvp_train.io import DATA
from clvp_train.pairs import SCHEMA, ARCodes, Manifest, Storage, make_plan, write_manifest
from clvp_train.pairs.schema import Shard, shard_name
from clvp_train.tortoise import FrozenTortoise

WORDS = ["the", "of", "and", "to", "in", "that", "was", "his", "he", "it", "with", "is", "for", "as", "had", "you"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("plan", "open", "test-split", "epoch"))
    parser.add_argument("--utterances", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--cache-gb", type=float)
    parser.add_argument("--folder", type=Path, help="keeps the data for the next measurement")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        steps = {"plan": plan, "open": open_pairs, "test-split": read_test_split, "epoch": read_epoch}
        steps[args.step](args, args.folder or Path(scratch))


def plan(args: argparse.Namespace, folder: Path) -> None:
    path = folder / f"texts-{args.utterances}.txt"
    if not path.exists():
        with path.open("w") as file:  # in blocks: as one list, 10 million texts take 10 GB
            for start in range(0, args.utterances, 100_000):
                own = texts(start, min(start + 100_000, args.utterances))
                file.writelines(f"{text}\n" for text in own)
    tortoise = FrozenTortoise.from_pretrained(DATA / "nano/tortoise")
    source = ARCodes(str(DATA / "nano/voices"))
    more = (folder,) if "cache_dir" in make_plan.__annotations__ else ()
    for name in ("plan", "plan again"):
        measured(name, lambda: make_plan(TextLines(str(path)), tortoise, source, 5, 3, *more))


def open_pairs(args: argparse.Namespace, folder: Path) -> None:
    written = write_pairs(folder / f"pairs-{args.utterances}-{args.shards}", args.utterances, args.shards)
    for name in ("copy and open", "open again"):
        measured(name, lambda: CLVPDataModule(written, batch_size=4096).check(1))


def read_test_split(args: argparse.Namespace, folder: Path) -> None:
    from clvp_train.evaluation.held_out import HeldOut

    data = CLVPDataModule(write_pairs(folder / f"pairs-{args.utterances}-{args.shards}", args.utterances, args.shards))
    data.check(1)
    measured("texts of the test split as lists", lambda: HeldOut.first_candidates(data.splits["test"]))


def read_epoch(args: argparse.Namespace, folder: Path) -> None:
    written = write_pairs(folder / f"pairs-{args.utterances}-{args.shards}", args.utterances, args.shards)
    more = {} if args.cache_gb is None else {"cache_gb": args.cache_gb}
    data = CLVPDataModule(written, batch_size=4096, **more)
    measured("open", lambda: data.check(1))
    for epoch in range(2):
        loader = data.train_dataloader()
        loader.batch_sampler.sampler.set_epoch(epoch)
        measured(f"epoch {epoch}", partial(deque, loader, maxlen=0))


def measured(name: str, step: Callable[[], object]) -> None:
    """Prints the time of a step, elapsed and of the processor, and how much memory its result, and the step at most, add."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, start, own_start = memory(), time.perf_counter(), time.process_time()
    result = step()
    seconds, own, after = time.perf_counter() - start, time.process_time() - own_start, memory()
    kept, peak = after["RssAnon"] - before["RssAnon"], after["VmHWM"] - before["VmRSS"]
    print(
        f"{name}: {seconds:.1f} s, {own:.1f} s of the processor, {kept:.0f} MB kept, {peak:.0f} MB at most with mapped files",
        flush=True,
    )
    del result


def memory() -> dict[str, float]:
    """MB by kind, of the kernel's status of this process; RssAnon without mapped files."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return {words[0].rstrip(":"): int(words[1]) / 1024 for words in lines if words[-1] == "kB"}


def texts(start: int, stop: int) -> list[str]:
    draw = np.random.default_rng(start)
    words = np.array(WORDS)[draw.integers(0, len(WORDS), (stop - start, 12))]
    return [f"{' '.join(row)} {number}" for number, row in zip(range(start, stop), words.tolist())]


def write_pairs(folder: Path, count: int, num_shards: int) -> Path:
    """Pairs with 20 text tokens and 60 codes each, random and the same in all shards."""
    if (folder / "manifest.json").exists():
        return folder
    storage, shards = Storage(folder), []
    rows = -(-count // num_shards)
    draw = np.random.default_rng(0)
    ids = {
        name: pa.array(list(draw.integers(1, 200, (rows, L), dtype=np.int32)))
        for name, L in (("input_ids", 20), ("speech_ids", 60))
    }
    for shard in range(num_shards):
        own = texts(shard * rows, (shard + 1) * rows)
        columns = {"id": [str(shard * rows + row) for row in range(rows)], "text": own, **ids}
        columns |= {"split": [split_of(text, 5, 3) for text in own], "finished": [True] * rows, "voice": ["slt"] * rows}
        table = pa.table(
            {
                field.name: pa.array(columns[field.name], field.type)
                if field.name in columns
                else pa.nulls(rows, field.type)
                for field in SCHEMA
            }
        )
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        data = sink.getvalue().to_pybytes()
        name = shard_name(shard, num_shards)
        storage.write(name, data)
        shards.append(Shard(name, rows, len(data), hashlib.sha256(data).hexdigest()))
    write_manifest(
        folder,
        Manifest("f" * 64, "simulated", "ar", num_shards, 256, 2048, "none", complete=True, shards=tuple(shards)),
    )
    return folder


if __name__ == "__main__":
    main()
