"""The rank of this process among the processes of a run, and waiting for the files of other ranks."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from clvp_train.errors import UserError

# SLURM_STEP_NUM_TASKS is set by srun only. SLURM_NTASKS is also set in a batch script without srun, where one process
# would wait forever for the others.
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))
POLL_SECONDS = 0.5
LOG_SECONDS = 60.0
log = logging.getLogger(__name__)


def rank_and_world_size() -> tuple[int, int]:
    """The rank and the number of processes: those of the process group, or before there is one as torchrun or srun set them;
    (0, 1) without a launcher, and in a shell that `srun --pty` has started.

    Raises:
        UserError: the launcher's variables are invalid.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    for names in LAUNCHERS:
        if all(name in os.environ for name in names) and not (names[0].startswith("SLURM") and in_pty_shell()):
            rank, world_size = (os.environ[name] for name in names)
            if not (rank.isdecimal() and world_size.isdecimal() and int(rank) < int(world_size)):
                raise UserError(
                    f"{names[0]}={rank} and {names[1]}={world_size}: not a rank and a number of processes. Check the launcher "
                    "or unset both."
                )
            return int(rank), int(world_size)
    return 0, 1


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


def wait_for(missing: Callable[[], str]) -> None:
    """Waits until `missing()` returns an empty string, and logs its result every minute.

    There is no timeout: the launcher notices a rank that has died and ends this one too.
    """
    logged = time.monotonic()
    while names := missing():
        if time.monotonic() - logged >= LOG_SECONDS:
            logged = time.monotonic()
            log.warning("waiting for other ranks to write %s", names)
        time.sleep(POLL_SECONDS)
