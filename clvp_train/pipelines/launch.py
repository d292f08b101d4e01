"""A command for several devices starts itself again on each device, before any work.

Lightning's own launcher would do so in `trainer.fit`, when one GPU has drawn all codes while the others waited.
"""

import logging
import os
import shlex
import sys
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from clvp_train.errors import STOPS, Stopped, UserError, handling
from clvp_train.io.process_rank import local_rank, rank_and_world_size
from clvp_train.pipelines.command import AGAIN, PARENT, USER_ERROR
from clvp_train.pipelines.paths import quote

RANKS = "CLVP_TRAIN_RANKS"  # where the ranks that this command has started write their process ids
MAX_RANKS_PER_CORE = 4


def on_all_ranks(wanted: L.Trainer, cfg: DictConfig) -> None:
    """Returns on every rank of the run, whose GPU is then the current one.

    Returns at once if torchrun or srun has started the ranks, or if one process is enough. Otherwise this process starts
    its own command on each device, as torchrun does, waits, and exits with the status of the first rank that failed.

    Args:
        wanted: a trainer with the run's accelerator, devices, nodes and strategy. It must be made with
            `plugins=LightningEnvironment()`, so that Lightning does not detect the launcher.
        cfg: the config of the run.

    Raises:
        UserError: the processes cannot be started from here, or the launcher has started another number of them.
    """
    count, (rank, world_size) = wanted.num_devices * wanted.num_nodes, rank_and_world_size()
    if world_size == 1 and "SLURM_NTASKS" in os.environ:
        os.environ["SLURM_JOB_NAME"] = "interactive"  # Lightning would expect as many ranks
    if world_size == 1 and count > 1:
        _check_startable(wanted, cfg)
        sys.exit(_start(_command(cfg), count))
    if count != world_size:
        raise UserError(
            f"trainer.devices × trainer.num_nodes is {wanted.num_devices} × {wanted.num_nodes}, but the launcher has started "
            f"{world_size} processes. Set trainer=ddp or trainer=ddp_cpu, trainer.devices to the processes per node and "
            "trainer.num_nodes to the number of nodes."
        )
    if rank != 0:
        logging.getLogger().setLevel(logging.WARNING)
    if RANKS in os.environ:
        Path(os.environ[RANKS], str(os.getpid())).touch()
    gpu = _gpu(wanted, local_rank(), torch.cuda.device_count())
    if gpu is not None:
        torch.cuda.set_device(gpu)


def _check_startable(wanted: L.Trainer, cfg: DictConfig) -> None:
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError(
            "--multirun: cannot start several processes per job. Use trainer=cpu or trainer=gpu, or start each run with "
            "torchrun."
        )
    if str(cfg.trainer.strategy).endswith(("_spawn", "_fork", "_notebook")):
        raise UserError(
            f"trainer.strategy={cfg.trainer.strategy}: cannot divide the generation of codes. Set it to ddp."
        )
    cores, is_cpu = os.cpu_count() or 1, wanted.strategy.root_device.type == "cpu"
    if is_cpu and wanted.num_devices > MAX_RANKS_PER_CORE * cores:
        raise UserError(
            f"trainer.devices={wanted.num_devices}: too many processes for {cores} CPU cores. Set at most "
            f"{MAX_RANKS_PER_CORE * cores}."
        )
    if wanted.num_nodes > 1:
        torchrun = ["torchrun", "--nnodes", str(wanted.num_nodes), "--nproc-per-node", str(wanted.num_devices)]
        torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "FIRST_NODE:29500", *_command(cfg)]
        raise UserError(
            f"trainer.num_nodes={wanted.num_nodes}: a command starts processes on its own node only. Use srun, or run this on "
            f"every node, with the name of the first one for FIRST_NODE: {shlex.join(torchrun)}"
        )


def _command(cfg: DictConfig) -> list[str]:
    """The arguments for python or torchrun that start this command again in the same run folder."""
    module = getattr(sys.modules["__main__"], "__spec__", None)  # of python -m
    script = ["-m", module.name] if module else [os.path.abspath(sys.argv[0])]
    known = HydraConfig.get().overrides
    typed_overrides = [argument for argument in sys.argv[1:] if argument in (*known.hydra, *known.task)]
    options = [argument for argument in sys.argv[1:] if argument not in typed_overrides]
    overrides = [override for override in typed_overrides if not override.startswith("resume=")]
    # the ranks work in the folder of this process, which has resolved resume=auto and stored the settings
    overrides += [f"hydra.run.dir={quote(cfg.paths.output)}", "hydra.output_subdir=null"]
    if cfg.get("resume"):
        overrides.append(f"resume={quote(cfg.resume)}")
    return [*script, *options, *overrides]  # Hydra accepts overrides in one sequence only, without options between them


def _start(command: list[str], count: int) -> int:
    """Runs `python COMMAND` on `count` ranks of this node and returns the exit status. When one rank fails, the others are
    ended."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // count)))
    os.chdir(HydraConfig.get().runtime.cwd)  # hydra.job.chdir may have changed it
    logging.disable(logging.CRITICAL)  # the agent logs many lines about a failed rank; one is printed below
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="clvp_train_") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            max_restarts=0,
            run_id=str(uuid.uuid4()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="127.0.0.1",
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        # the agent's own handlers would kill the ranks after 30 seconds
        os.environ |= {RANKS: folder, PARENT: str(os.getpid()), "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGHUP,SIGQUIT"}
        try:
            with handling(_forward(Path(folder), count)):
                elastic_launch(config, sys.executable)(*command)
        except SignalException as error:
            return 128 + error.sigval
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode in (USER_ERROR, *(128 + number for number in STOPS)):
                return failure.exitcode  # the rank has printed the reason
            killed = failure.exitcode < 0
            how = f"was killed by {failure.signal_name()}" if killed else f"ended with status {failure.exitcode}"
            print(f"error: rank {rank} {how}, and the other ranks were ended", file=sys.stderr)
            return 128 - failure.exitcode if killed else failure.exitcode
    return 0


def _forward(folder: Path, count: int) -> Callable[[int, Any], None]:
    """A handler that forwards a signal to the ranks, so that they save and exit."""

    def forward(number: int, frame: Any) -> None:
        ranks = [int(file.name) for file in folder.iterdir() if file.name.isdigit()]
        if len(ranks) < count:
            raise Stopped(number, AGAIN)  # nothing to save yet
        for rank in ranks:
            with suppress(ProcessLookupError):
                os.kill(rank, number)

    return forward


def _gpu(wanted: L.Trainer, number: int, num_gpus: int) -> int | None:
    """The GPU that `cuda` without a number means on this rank, as in tortoise.device=cuda; None keeps the current one."""
    devices = getattr(wanted.strategy, "parallel_devices", None) or [wanted.strategy.root_device]
    if devices[0].type == "cuda":
        return devices[number].index
    return number % num_gpus if num_gpus and len(devices) > 1 else None  # training on the CPU, drawing on the GPUs
