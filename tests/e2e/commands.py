"""Runs commands as a user types them, each in a separate process and folder."""

import importlib
import itertools
import multiprocessing
import os
import resource
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub

ROOT = Path(__file__).parents[2]
TRAIN, EVALUATE, GENERATE = "train.py", "evaluate.py", "clvp_train/generate.py"
RERANK, DEMO = "clvp_train/rerank.py", "clvp_train/demo/__main__.py"
TIMEOUT = 240

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["clvp_train.pipelines.train"])
_numbers = itertools.count()


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
        "MPLCONFIGDIR": os.path.join(tempfile.gettempdir(), "clvp_train_matplotlib"),  # its font cache, made once
    }
    return kept | fixed | {"HOME": str(home)} | extra


def execute(command: Sequence[str], cwd: Path, **extra: str) -> Finished:
    """Runs a command in a new Python process, which takes several seconds for its imports."""
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


@dataclass(frozen=True)
class Running:
    """A command under way."""

    process: Any
    files: tuple[Path, Path]

    def kill(self) -> bool:
        """SIGKILL, which nothing can catch. Returns whether it was still running."""
        alive = self.process.exitcode is None
        self.process.kill()
        self.process.join(TIMEOUT)
        return alive and self.process.exitcode < 0

    def finish(self) -> Finished:
        self.process.join(TIMEOUT)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(self.files[1].read_text())
        return Finished(self.process.exitcode, *(file.read_text() for file in self.files))


def start(script: str, overrides: Sequence[str], cwd: Path, file_limit: int | None = None, **extra: str) -> Running:
    """Starts a command in a process forked from one that has imported the package, which spares the imports.

    Args:
        file_limit: bytes that a file may have, as if the disk were full then.
    """
    number = next(_numbers)
    files = cwd / f".stdout-{number}", cwd / f".stderr-{number}"
    arguments = (str(ROOT / script), list(overrides), cwd, environment(cwd, **extra), files, file_limit)
    process = _server.Process(target=_command, args=arguments)
    process.start()
    return Running(process, files)


def run(script: str, overrides: Sequence[str], cwd: Path, **extra: Any) -> Finished:
    """Starts a command, see `start`, and waits for its end."""
    return start(script, overrides, cwd, **extra).finish()


def _command(
    script: str, overrides: list[str], cwd: Path, env: dict[str, str], files: tuple[Path, Path], file_limit: int | None
) -> None:
    for descriptor, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    importlib.reload(huggingface_hub.constants)  # was read from the variables of the process that this is forked from
    sys.argv = [script, *overrides]
    sys.path[:0] = env["PYTHONPATH"].split(os.pathsep)
    runpy.run_path(script, run_name="__main__")
