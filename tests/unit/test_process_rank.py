import logging
import os
import tempfile
import time

import pytest

from clvp_train.errors import UserError
from clvp_train.io import process_rank, slurm
from clvp_train.io.process_rank import node_folder, rank_and_world_size

SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
        (SRUN, (3, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (0, 1)),  # a batch script without srun
        (SRUN | {"RANK": "0", "WORLD_SIZE": "2"}, (0, 2)),  # torchrun under srun
        ({"WORLD_SIZE": "2"}, (0, 1)),
    ],
)
def test_ranks_of_torchrun_and_srun(monkeypatch, variables, expected):
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert rank_and_world_size() == expected


@pytest.mark.parametrize(
    ("variables", "terminal", "expected"),
    [
        ({}, "34816", (3, 4)),  # srun without --pty
        ({"SLURM_PTY_PORT": "4711"}, "34816", (0, 1)),
        ({"SLURM_PTY_WIN_COL": "80", "SLURM_TASK_PID": "other"}, "34816", (0, 1)),
        ({"SLURM_PTY_PORT": "4711", "SLURM_TASK_PID": "gone"}, "34816", (0, 1)),
        ({"SLURM_PTY_PORT": "4711", "SLURM_TASK_PID": "other"}, "0", (3, 4)),  # a script of an srun in the shell
        ({"SLURM_PTY_PORT": "4711", "SLURM_TASK_PID": str(os.getpid())}, "34816", (3, 4)),  # srun --pty python train.py
        ({"SLURM_PTY_PORT": "4711", "SLURM_TASK_PID": str(os.getpgrp())}, "34816", (3, 4)),  # srun --pty script
        ({"SLURM_PTY_PORT": "4711", "RANK": "1", "WORLD_SIZE": "2"}, "34816", (1, 2)),  # torchrun in the shell
    ],
)
def test_a_shell_of_srun_is_no_rank(monkeypatch, tmp_path, variables, terminal, expected):
    (tmp_path / "proc/other").mkdir(parents=True)
    (tmp_path / "proc/other/stat").write_text(f"77 (a (ba)sh) S 1 77 77 {terminal} 77\n")
    monkeypatch.setattr(slurm, "Path", lambda path: tmp_path / path.lstrip("/"))
    for name in ("RANK", "WORLD_SIZE", "SLURM_TASK_PID", "SLURM_PTY_PORT", "SLURM_PTY_WIN_COL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (SRUN | variables).items():
        monkeypatch.setenv(name, value)
    assert rank_and_world_size() == expected


@pytest.mark.parametrize(("rank", "size"), [("abc", "2"), ("2", "2"), ("-1", "2"), ("0", "")])
def test_invalid_ranks(monkeypatch, rank, size):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(UserError, match=f"RANK={rank} and WORLD_SIZE={size}"):
        rank_and_world_size()


def test_waiting_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(process_rank, "LOG_SECONDS", 0.0)
    monkeypatch.setattr(process_rank, "POLL_SECONDS", 0.0)
    answers = iter(["shards 3 and 5", "shards 3 and 5", ""])
    with caplog.at_level(logging.WARNING):
        process_rank.wait_for(lambda: next(answers))
    assert caplog.text.count("waiting for other ranks to write shards 3 and 5") == 2


def test_what_earlier_jobs_have_left_is_removed_once_it_is_old(monkeypatch, tmp_path):
    for name, value in (SRUN | {"SLURM_JOB_ID": "8", "SLURM_STEP_ID": "0"}).items():
        monkeypatch.setenv(name, value)
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_ERROR_FILE", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    prefix = f"clvp_train-{os.getuid()}-"
    for job, days in ((6, 8), (7, 6)):
        (tmp_path / f"{prefix}{job}.0.0").mkdir()
        (tmp_path / f"{prefix}{job}.0.0/scan-0.npz").touch()
        (tmp_path / f".failed-{job}.0.0").touch()
        for path in tmp_path.glob(f"*{job}.0.0"):
            os.utime(path, (time.time() - days * 86400,) * 2)
    with slurm.announcing_failure(tmp_path):
        assert node_folder() == tmp_path / f"{prefix}8.0.0"
    assert {path.name for path in tmp_path.iterdir()} == {f"{prefix}7.0.0", f"{prefix}8.0.0", ".failed-7.0.0"}
