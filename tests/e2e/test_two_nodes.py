"""One process and two, two torchrun nodes on this machine, and two processes of a SLURM job: the same weights."""

import subprocess
import sys

import torch

from clvp_train.models import load_clvp
from tests.distributed.ranks import free_port
from tests.e2e.commands import ROOT, TRAIN, environment, run
from tests.e2e.conftest import BUDGET, CORPUS

TEN = [*CORPUS, *BUDGET, "trainer.max_steps=10", "trainer.max_epochs=100", "data.num_hard_negatives=1"]
TEN += ["trainer.check_val_every_n_epoch=4", "test=false"]


def difference(one, other):
    ours, theirs = (load_clvp(output / "checkpoints/last.ckpt").state_dict() for output in (one, other))
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def test_ten_steps_give_the_same_weights_however_the_processes_are_started(workplace):
    alone = run(TRAIN, [*TEN, "hydra.run.dir=one"], workplace)
    assert alone.status == 0, alone.stderr
    two = run(TRAIN, [*TEN, "trainer=ddp_cpu", "trainer.devices=2", "hydra.run.dir=two"], workplace)
    assert two.status == 0, two.stderr
    nodes = [
        "-m",
        "torch.distributed.run",
        "--nnodes=2",
        "--nproc-per-node=1",
        "--rdzv-backend=c10d",
        "--rdzv-id=nodes",
    ]
    nodes += [f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--local-addr=127.0.0.1", str(ROOT / TRAIN), *TEN]
    nodes += ["trainer=ddp_cpu", "trainer.devices=1", "trainer.num_nodes=2", "hydra.run.dir=nodes"]
    settings = {"cwd": workplace, "env": environment(workplace), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    running = [subprocess.Popen([sys.executable, *nodes], text=True, **settings) for _ in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    # as srun starts them, without a cluster
    srun = {"SLURM_JOB_ID": str(free_port()), "SLURM_JOB_NAME": "clvp", "SLURM_NODELIST": "127.0.0.1"}
    srun |= {
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NODEID": "0",
        "SLURM_STEP_ID": "0",
    }
    command = [sys.executable, str(ROOT / TRAIN), *TEN, "trainer=ddp_cpu", "trainer.devices=2", "hydra.run.dir=srun"]
    running = [
        subprocess.Popen(
            [*command, "resume=auto"],
            text=True,
            **settings | {"env": environment(workplace, **srun, SLURM_PROCID=rank, SLURM_LOCALID=rank)},
        )
        for rank in "01"
    ]
    outputs = [process.communicate(timeout=240)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    for name in ("two", "nodes", "srun"):
        assert difference(workplace / "one", workplace / name) < 1e-5, name
        assert sorted(path.name for path in (workplace / name / "checkpoints").glob("*.ckpt"))
    stored = torch.load(workplace / "nodes/checkpoints/last.ckpt", weights_only=True)
    assert stored["global_step"] == 10 and stored["clvp_run"]["free"]["number of processes"] == 2
