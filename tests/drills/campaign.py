"""Kills and signals at random moments: commands are stopped up to three times and resumed, and their results compared with those
of undisturbed ones.

    python -m tests.drills.campaign --jobs 2

prints the table of docs/reliability.md.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tests.e2e.commands import ROOT, environment
from tests.e2e.conftest import BUDGET, CORPUS, FEW_CANDIDATES, write_sentences

MARK = "CLVP_DRILL"  # an environment variable of all processes of a drill
SIGNALS = (*[signal.SIGKILL] * 3, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
COLUMNS = ("kills", "signals", "lost", "different", "orphans", "tracebacks", "other status")
PAIR = ["trainer=ddp_cpu", "trainer.devices=2"]
TRAIN = [
    *CORPUS,
    *BUDGET,
    "trainer.max_steps=60",
    "callbacks.checkpoint.every_n_train_steps=2",
    "callbacks=[default,ema]",
]


@dataclass(frozen=True)
class Drill:
    """A command, the folders that it needs, and what must not depend on interruptions."""

    name: str
    command: list[str]
    ranks: int = 1
    needs: tuple[str, ...] = ("outputs",)
    results: tuple[str, ...] = ()


GENERATE = ["-m", "clvp_train.generate", *CORPUS, "codes.shard_size=8", "output_dir=pairs", "hydra.run.dir=run"]
TRAINING = [str(ROOT / "train.py"), *TRAIN, "resume=auto", "hydra.run.dir=run"]
EVALUATE = [str(ROOT / "evaluate.py"), *CORPUS, *FEW_CANDIDATES, "checkpoint=run/model", "hydra.run.dir=evaluated"]
RERANK = ["-m", "clvp_train.rerank", "checkpoint=run/model", "candidates=candidates", "output_dir=ranked"]
DRILLS = [
    Drill("generate", GENERATE, needs=(), results=("pairs/*.parquet",)),
    Drill("generate", [*GENERATE, *PAIR], 2, needs=(), results=("pairs/*.parquet",)),
    Drill("train", TRAINING, results=("run/model/*", "run/report/metrics.json", "run/checkpoints/*")),
    Drill("train", [*TRAINING, *PAIR], 2, results=("run/model/*", "run/report/metrics.json", "run/checkpoints/*")),
    Drill("evaluate", EVALUATE, needs=("outputs", "run"), results=("evaluated/report/metrics.json",)),
    Drill("evaluate", [*EVALUATE, *PAIR], 2, ("outputs", "run"), ("evaluated/report/metrics.json",)),
    Drill("rerank", RERANK, needs=("run", "candidates"), results=("ranked/*",)),
    Drill("push", ["-m", "clvp_train.push", "checkpoint=run", "hub=local"], needs=("run",), results=("run/hub/**/*",)),
]


def start(command: list[str], cwd: Path) -> subprocess.Popen:
    # a shell in the background ignores SIGINT
    unignore = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    with (cwd / "stderr").open("w") as errors:
        arguments, env = [sys.executable, *command], environment(cwd, **{MARK: cwd.name})
        return subprocess.Popen(
            arguments, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=errors, preexec_fn=unignore
        )


def orphans(cwd: Path) -> int:
    """The number of processes of a drill that still run after ten seconds. They are killed."""
    mark, deadline = f"{MARK}={cwd.name}".encode(), time.monotonic() + 10
    while True:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
        if not found or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    for process in found:
        os.kill(process, signal.SIGKILL)
    return len(found)


def result(drill: Drill, cwd: Path) -> dict[str, str]:
    """Digests of the files, and of the tensors of checkpoints, that a command has written."""
    digests = {}
    for path in sorted(path for pattern in drill.results for path in cwd.glob(pattern) if path.is_file()):
        name = path.relative_to(cwd).as_posix()
        if path.suffix == ".ckpt":
            stored = torch.load(path, weights_only=True)
            tensors = [*stored["state_dict"].items(), *stored["current_model_state"].items()]
            digests |= {f"{name} {key}": hashlib.sha256(value.numpy().tobytes()).hexdigest() for key, value in tensors}
        elif path.name not in (
            "training_config.yaml",
            "SHA256SUMS",
        ):  # these contain the path of the run, and its digest
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def disturbed(drill: Drill, undisturbed: Path, seconds: float, seed: int) -> Counter[str]:
    """Stops a command up to three times, each time with another signal or kill, and then runs it to the end."""
    draw, counts = random.Random(seed), Counter[str]()
    cwd = prepared(drill, undisturbed, f"{undisturbed.name}-{seed}-")
    for _ in range(draw.randint(1, 3)):
        process, number = start(drill.command, cwd), draw.choice(SIGNALS)
        try:
            process.wait(draw.uniform(0, seconds))
            break  # finished before
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        status = process.wait(120)
        counts["kills" if number == signal.SIGKILL else "signals"] += 1
        counts["orphans"] += orphans(cwd)
        errors = (cwd / "stderr").read_text()
        if "Traceback" in errors and number != signal.SIGKILL:
            counts["tracebacks"] += 1
            print(f"{cwd}: {signal.Signals(number).name}\n{errors}")
        if status not in (128 + number, -number) and not (
            status == 0 and number != signal.SIGKILL and ended(drill, cwd)
        ):
            counts["other status"] += 1
            print(f"{cwd}: {signal.Signals(number).name}, status {status}\n{(cwd / 'stderr').read_text()}")
    if start(drill.command, cwd).wait(600) != 0:
        counts["lost"] += 1
        print(f"{cwd}: {(cwd / 'stderr').read_text()}")
    elif result(drill, cwd) != result(drill, undisturbed):
        counts["different"] += 1
        differences = dict(result(drill, cwd).items() ^ result(drill, undisturbed).items())
        print(f"{cwd} differs: {sorted(differences)[:5]}")
    else:
        shutil.rmtree(cwd)
    return counts


def ended(drill: Drill, cwd: Path) -> bool:
    """Whether a command had nothing left to do when the signal arrived."""
    return drill.name != "train" or (cwd / "run/finished.json").exists()


def prepared(drill: Drill, source: Path, prefix: str) -> Path:
    """A new folder next to `source` with copies of what the command needs."""
    cwd = Path(tempfile.mkdtemp(prefix=prefix, dir=source.parent))
    write_sentences(cwd)
    for name in drill.needs:
        shutil.copytree(source / name, cwd / name, ignore=shutil.ignore_patterns("hub"))
    return cwd


def write_candidates(folder: Path) -> None:
    draw = random.Random(0)
    folder.mkdir()
    for number in range(8):
        rows = [
            {"text": f"Sentence {n // 8}.", "speech_ids": draw.choices(range(2000), k=draw.randint(5, 80))}
            for n in range(160)
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"part-{number}.parquet")


def row(drill: Drill, source: Path, settings: argparse.Namespace) -> str:
    """The row of the table for one command. What it writes undisturbed stays in `source`, for the next ones."""
    for _ in range(1 if not drill.needs else 2):  # the second time with its pairs, as the disturbed ones
        for name in {pattern.split("/")[0] for pattern in drill.results} - set(drill.needs):
            shutil.rmtree(source / name, ignore_errors=True)
        shutil.rmtree(source / "run/hub", ignore_errors=True)
        begun = time.monotonic()
        assert start(drill.command, source).wait(600) == 0, (source / "stderr").read_text()
    seconds, counts, seed = time.monotonic() - begun, Counter[str](), settings.seed
    with ThreadPoolExecutor(settings.jobs) as pool:
        while counts["kills"] + counts["signals"] < settings.stops:
            seeds = range(seed, seed + settings.jobs)
            counts += sum(pool.map(lambda own: disturbed(drill, source, seconds, own), seeds), Counter[str]())
            seed += settings.jobs
    return f"| {drill.name} | {drill.ranks} | " + " | ".join(str(counts[column]) for column in COLUMNS) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=22, help="kills and signals for each row of the table")
    parser.add_argument(
        "--rows", nargs="*", type=int, help="rows of the table, from 0; a row needs what those before it wrote"
    )
    parser.add_argument("--jobs", type=int, default=1, help="drills at the same time")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    source = Path(tempfile.mkdtemp(prefix="campaign-")) / "undisturbed"
    source.mkdir()
    write_sentences(source)
    write_candidates(source / "candidates")
    (source / "outputs").mkdir()
    print("| command | processes | " + " | ".join(COLUMNS) + " |\n| --- | --- |" + " --- |" * len(COLUMNS))
    for drill in DRILLS if settings.rows is None else [DRILLS[number] for number in settings.rows]:
        print(row(drill, source, settings), flush=True)


if __name__ == "__main__":
    main()
