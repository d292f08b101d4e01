"""Runs the commands that a user types, each in a process and a folder of its own."""

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRAIN, EVALUATE, GENERATE = "train.py", "evaluate.py", "clvp_train/generate.py"
TIMEOUT = 240

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["clvp_train.app"])


@dataclass(frozen=True)
class Finished:
    status: int
    stdout: str
    stderr: str


def environment(home: Path, **extra: str) -> dict[str, str]:
    """One thread, no network, and none of the user's own settings of W&B."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "HYDRA", "PL_"))}
    fixed = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
    }
    return kept | fixed | {"HOME": str(home)} | extra


def execute(command: Sequence[str], cwd: Path, **extra: str) -> Finished:
    """Starts python anew: the whole truth, and several seconds of imports."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=environment(cwd, **extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def run(script: str, overrides: Sequence[str], cwd: Path, **extra: str) -> Finished:
    """The same in a process forked from one that has imported the package, which spares the imports."""
    files = cwd / ".stdout", cwd / ".stderr"
    arguments = (str(ROOT / script), list(overrides), cwd, environment(cwd, **extra), files)
    process = _server.Process(target=_command, args=arguments)
    process.start()
    process.join(TIMEOUT)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{script} {' '.join(overrides)}: {files[1].read_text()}")
    return Finished(process.exitcode, files[0].read_text(), files[1].read_text())


def _command(script: str, overrides: list[str], cwd: Path, env: dict[str, str], files: tuple[Path, Path]) -> None:
    for descriptor, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [script, *overrides]
    sys.path[:0] = env["PYTHONPATH"].split(os.pathsep)
    runpy.run_path(script, run_name="__main__")
