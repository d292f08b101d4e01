"""What srun leaves to its tasks: to find out whether they are ranks of one run, and that one of them has failed.

Nothing here imports torch, so that a command can announce that its imports have failed.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clvp_train.errors import UserError
from clvp_train.io import write_text

OLD = 7 * 24 * 3600  # seconds; longer than a job runs
_failure: Path | None = None  # the file by which a rank announces that it has failed


def in_pty_shell() -> bool:
    """Whether this command was typed in a shell of `srun --pty`: the other tasks are shells that have ended."""
    task = os.environ.get("SLURM_TASK_PID", "")  # what srun has started: a shell, a script, or this process
    if not any(name.startswith("SLURM_PTY_") for name in os.environ):
        return False
    if task in (str(os.getpid()), str(os.getpgrp())):  # a script shares its process group with its commands
        return False
    try:  # an srun in that shell inherits its variables, but starts tasks without a terminal
        return not task or Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()[4] != "0"
    except OSError:
        return True


def slurm_step() -> str | None:
    """Names this start of several ranks by srun, on all of its nodes; None if srun has not started this process."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    job, step, restarts = (os.environ.get(name, "") for name in names)
    has_ranks = "RANK" not in os.environ and os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1" and not in_pty_shell()
    return f"{job}.{step}.{restarts or 0}" if has_ranks and job and step else None


@contextmanager
def announcing_failure(folder: Path | None) -> Iterator[None]:
    """Tells ranks that wait for files if this one fails in the block. Does nothing unless srun has started the ranks: by
    default it lets the others run on, and they would wait until the time limit of the job.

    Args:
        folder: that all ranks share; None: there is none.
    """
    global _failure
    step = slurm_step()
    if folder is None or step is None:
        yield
        return
    remove_old(folder, ".failed-*")
    _failure = folder / f".failed-{step}"
    try:
        yield
    except BaseException as error:
        has_failed = not isinstance(error, SystemExit) or error.code not in (0, None)
        if has_failed and not _failure.exists():
            reason = " ".join(str(getattr(error, "message", error)).split()) or type(error).__name__
            with suppress(OSError):
                write_text(_failure, f"rank {os.environ.get('SLURM_PROCID')} has failed: {reason.rstrip('.')}.")
        raise
    finally:
        _failure = None


def check_other_ranks() -> None:
    """Raises UserError if another rank has announced that it has failed."""
    if _failure is not None and _failure.exists():
        raise UserError(f"{_failure.read_text(encoding='utf-8')} Fix the cause, and run the same command again.")


def remove_old(folder: Path, pattern: str) -> None:
    """Removes the files and folders that jobs have left for their ranks, once they are so old that no rank needs them."""
    for path in folder.glob(pattern):
        with suppress(OSError):  # another rank has removed it
            if time.time() - path.stat().st_mtime > OLD:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
