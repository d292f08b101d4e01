"""Kills and signals at random moments: `python -m tests.drills.campaign --stops 20` resumes what they interrupt, compares it with
an undisturbed run, and writes the table of docs/reliability.md."""

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
from pathlib import Path

import torch

from tests.e2e.commands import ROOT, environment
from tests.e2e.conftest import BUDGET, CORPUS, write_sentences

PAIR = ["trainer=ddp_cpu", "trainer.devices=2"]
GENERATE = ["-m", "clvp_train.generate", *CORPUS, "codes.shard_size=8", "output_dir=pairs", "hydra.run.dir=run"]
TRAIN = [str(ROOT / "train.py"), *CORPUS, *BUDGET, "trainer.max_steps=60", "callbacks.checkpoint.every_n_train_steps=2"]
TRAIN += ["callbacks=[default,ema]", "resume=auto", "hydra.run.dir=run"]
MARK = "CLVP_DRILL"  # an environment variable of all processes of a drill
SIGNALS = {signal.SIGKILL: "kills", signal.SIGTERM: "signals", signal.SIGUSR1: "signals", signal.SIGINT: "signals"}
COLUMNS = ("kills", "signals", "lost", "different", "orphans", "tracebacks")
PAGE = ROOT / "docs/reliability.md"


def start(command: list[str], cwd: Path) -> subprocess.Popen:
    env = environment(cwd, **{MARK: cwd.name})
    # a new session, as of a shell's job; a shell in the background ignores SIGINT
    unignore = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    error = (cwd / "stderr").open("w")
    return subprocess.Popen(
        [sys.executable, *command], cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=error, preexec_fn=unignore
    )


def orphans(cwd: Path) -> list[int]:
    """Processes of a drill that still run after ten seconds; they are killed."""
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
    return found


def result(cwd: Path) -> dict[str, str]:
    """Digests of what must not depend on interruptions."""
    digests = {}
    for path in sorted([*cwd.glob("pairs/*.parquet"), *cwd.glob("run/model/*"), *cwd.glob("run/report/metrics.json")]):
        if path.name != "training_config.yaml":  # contains the path of the run
            digests[path.relative_to(cwd).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    digests |= {path.name: "" for path in cwd.glob("run/checkpoints/*")}
    if (cwd / "run/checkpoints/last.ckpt").exists():
        stored = torch.load(cwd / "run/checkpoints/last.ckpt", weights_only=True)
        for name, tensor in (*stored["state_dict"].items(), *stored["current_model_state"].items()):
            digests[f"last.ckpt {name}"] = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    return digests


def drill(command: list[str], undisturbed: Path, seconds: float, counts: Counter, draw: random.Random) -> None:
    """One run that is stopped up to three times and resumed by the same command."""
    cwd = Path(tempfile.mkdtemp(prefix="drill-", dir=undisturbed.parent))
    prepare(command, undisturbed, cwd)
    for _ in range(draw.randint(1, 3)):
        process, number = start(command, cwd), draw.choice(list(SIGNALS))
        try:
            process.wait(draw.uniform(0, seconds))
            break  # finished before
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        status = process.wait(120)
        counts[SIGNALS[number]] += 1
        counts["orphans"] += len(orphans(cwd))
        counts["tracebacks"] += "Traceback" in (cwd / "stderr").read_text() and number != signal.SIGKILL
        if number != signal.SIGKILL and status not in (0, 128 + number, -number):
            print(f"{signal.Signals(number).name}: status {status}\n{(cwd / 'stderr').read_text()}")
    if start(command, cwd).wait(600) != 0:
        counts["lost"] += 1
        print(f"{cwd}: {(cwd / 'stderr').read_text()}")
    elif result(cwd) != result(undisturbed):
        counts["different"] += 1
        print(f"{cwd} differs: {[name for name, _ in result(cwd).items() ^ result(undisturbed).items()]}")
    else:
        shutil.rmtree(cwd)


def prepare(command: list[str], source: Path, cwd: Path) -> None:
    write_sentences(cwd)
    if command[0] != "-m" and (source / "outputs").exists():
        shutil.copytree(source / "outputs", cwd / "outputs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stops", type=int, default=20, help="kills and signals for each row of the table")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    rows, draw, folder = [], random.Random(settings.seed), Path(tempfile.mkdtemp(prefix="campaign-"))
    for name, command in (("generate", GENERATE), ("train", TRAIN)):
        for ranks, more in ((1, []), (2, PAIR)):
            undisturbed, counts = folder / f"{name}-{ranks}", Counter[str]()
            undisturbed.mkdir()
            prepare(command, undisturbed, undisturbed)
            for _ in range(1 if name == "generate" else 2):  # the second time with its pairs, as in the drills
                shutil.rmtree(undisturbed / "run", ignore_errors=True)
                begun = time.monotonic()
                assert start([*command, *more], undisturbed).wait(600) == 0, (undisturbed / "stderr").read_text()
            seconds = time.monotonic() - begun
            while counts["kills"] + counts["signals"] < settings.stops:
                drill([*command, *more], undisturbed, seconds, counts, draw)
            rows.append(f"| {name} | {ranks} | " + " | ".join(str(counts[column]) for column in COLUMNS) + " |")
            print(rows[-1], flush=True)
    head = ["| command | processes | " + " | ".join(COLUMNS) + " |", "| --- | --- |" + " --- |" * len(COLUMNS)]
    text = PAGE.read_text().partition("\n| command")[0]
    call = f"`python -m tests.drills.campaign --stops {settings.stops} --seed {settings.seed}`"
    text = text[: text.index("This table")] + f"This table was written by {call}:\n"
    PAGE.write_text(text + "\n" + "\n".join([*head, *rows]) + "\n")


if __name__ == "__main__":
    main()
