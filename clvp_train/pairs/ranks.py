"""Which process of how many this is, and waiting for the files of the others."""

import logging
import os
import time
from collections.abc import Callable

from clvp_train.errors import UserError

# srun sets SLURM_STEP_NUM_TASKS; SLURM_NTASKS a batch script without srun sees too, and its lone process would wait for ever
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))
POLL_SECONDS = 0.5
TELL_SECONDS = 60.0
log = logging.getLogger(__name__)


def rank_and_world_size() -> tuple[int, int]:
    """From torchrun or srun; (0, 1) without them.

    Raises:
        UserError: the launcher's variables are no such numbers.
    """
    for names in LAUNCHERS:
        if all(name in os.environ for name in names):
            values = [os.environ[name] for name in names]
            if not (all(value.isdecimal() for value in values) and int(values[0]) < int(values[1])):
                raise UserError(
                    f"{names[0]}={values[0]} and {names[1]}={values[1]} are no rank and number of processes: check the "
                    "launcher, or unset both"
                )
            return int(values[0]), int(values[1])
    return 0, 1


def wait_for(missing: Callable[[], str]) -> None:
    """Waits until nothing is `missing`, and says every minute what is. A rank that died is noticed by its launcher, which
    then ends this one too."""
    told = time.monotonic()
    while words := missing():
        if time.monotonic() - told >= TELL_SECONDS:
            told = time.monotonic()
            log.warning("still waiting for other ranks to write %s", words)
        time.sleep(POLL_SECONDS)
