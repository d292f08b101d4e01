"""The rank of this process among the processes of a run, and waiting for the files of other ranks."""

import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist

from clvp_train.errors import UserError
from clvp_train.io import write_text
from clvp_train.io.slurm import check_other_ranks, in_pty_shell, remove_old, slurm_step

# SLURM_STEP_NUM_TASKS is set by srun only. SLURM_NTASKS is also set in a batch script without srun, where one process
# would wait forever for the others.
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))
T = TypeVar("T")
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


def local_rank() -> int:
    """The number of this process among those that the launcher has started on this node."""
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)


def node_folder() -> Path | None:
    """A local folder that the ranks on this node share in this start of the run only; None: unknown, or a single process."""
    if rank_and_world_size()[1] == 1:
        return None
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # torchrun's, in a folder of this rank below one of all ranks
        return Path(file).parents[1]
    if step := slurm_step():
        prefix = f"clvp_train-{os.getuid()}-"
        remove_old(Path(tempfile.gettempdir()), f"{prefix}*")
        folder = Path(tempfile.gettempdir(), f"{prefix}{step}")
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder if folder.stat().st_uid == os.getuid() else None
    return None


def from_first_of_node(name: str, make: Callable[[Path | None], T], load: Callable[[Path], T | None]) -> tuple[T, bool]:
    """What the first rank of each node makes, also for the others. Where ranks share no folder, each of them makes it.

    Args:
        name: of the file, not used twice. It stays, because another rank may be late; see `remove_old`.
        make: makes it, and writes it atomically to a path that is not None.
        load: reads it.

    Returns:
        The result, and whether this rank has made it.

    Raises:
        UserError: `make` has raised it, on all ranks.
    """
    folder = node_folder()
    if folder is None:
        return make(None), True
    path, failure = folder / name, folder / f"{name}.error"
    if local_rank() == 0:
        try:
            return make(path), True
        except UserError as error:
            write_text(failure, str(error))
            raise
    wait_for(lambda: "" if path.exists() or failure.exists() else name)
    if failure.exists():
        raise UserError(failure.read_text(encoding="utf-8"))
    result = load(path)
    assert result is not None, f"{path}: cannot be read"
    return result, False


def wait_for(missing: Callable[[], str]) -> None:
    """Waits until `missing()` returns an empty string, and logs its result every minute.

    There is no timeout: the launcher notices a rank that has died and ends this one too; under srun see `slurm`.

    Raises:
        UserError: another rank has failed.
    """
    logged = time.monotonic()
    while names := missing():
        check_other_ranks()
        if time.monotonic() - logged >= LOG_SECONDS:
            logged = time.monotonic()
            log.warning("waiting for other ranks to write %s", names)
        time.sleep(POLL_SECONDS)
