"""`logger=wandb`: one W&B run through kill and resume, on one rank of many, for each job of a sweep; offline and synced."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.commands import ROOT, TIMEOUT, TRAIN, environment, run
from tests.e2e.conftest import BUDGET, CORPUS
from tests.e2e.test_resume import PAIR, WAITING, started
from tests.e2e.wandb_files import of_kind, rows
from tests.e2e.wandb_stand_in import stand_in

OFFLINE = ["logger=wandb", "logger.wandb.offline=true"]
WAITING_RUN = [*CORPUS, *BUDGET, "logger=wandb", "trainer.max_steps=6", "hydra.run.dir=run"]
WAITING_RUN += ["callbacks.checkpoint.every_n_train_steps=2", "+callbacks.at._target_=waiting.At"]
KEY = {"WANDB_API_KEY": "0123456789" * 4}


def folders(output: Path) -> list[Path]:
    return sorted((output / "wandb").glob("*run-*-*"))


def copy_of(trained, cwd: Path) -> Path:
    """A working directory with pairs, in which a run can be made to wait."""
    shutil.copy(trained.cwd / "sentences.txt", cwd)
    shutil.copytree(trained.cwd / "outputs" / "codes", cwd / "outputs" / "codes")
    (cwd / "waiting.py").write_text(WAITING)
    return cwd


def resume(cwd: Path, **extra: str) -> None:
    done = run(TRAIN, ["resume=run", "trust_run_folder=true"], cwd, PYTHONPATH=f"{ROOT}{os.pathsep}{cwd}", **extra)
    assert done.status == 0, done.stderr


@pytest.fixture(scope="module")
def twice(trained, tmp_path_factory) -> Path:
    """The folder of a run that was killed between two checkpoints and resumed."""
    cwd = copy_of(trained, tmp_path_factory.mktemp("twice"))
    running = started([*WAITING_RUN, "logger.wandb.offline=true", "logger.wandb.artifact=true"], cwd, wait_at=5)
    time.sleep(1)  # ten times as long as the client may hold rows back
    running.kill()
    resume(cwd, **KEY)
    return cwd / "run"


def test_a_run_that_is_killed_and_resumed_is_one_run_without_a_gap(twice):
    before, after = folders(twice)
    id = (twice / "logs/wandb_id").read_text().strip()
    assert before.name.endswith(id) and after.name.endswith(id) and before.name.startswith("offline-run-")
    assert [record.run_id for folder in (before, after) for record in of_kind(folder, "run")] == [id, id]
    assert not of_kind(before, "exit") and of_kind(after, "exit")
    first, second = rows(before), rows(after)
    assert [row["_step"] for row in first] == list(range(len(first)))
    began = second[0]["_step"]
    assert 0 < began <= len(first) and [row["_step"] for row in second] == list(range(began, began + len(second)))
    losses = [(row["trainer/global_step"], row["train/loss"]) for row in first[:began] + second if "train/loss" in row]
    assert [step for step, _ in losses] == list(range(6))
    # what the killed process logged after its checkpoint, the next one logs again
    assert {row["trainer/global_step"]: row["train/loss"] for row in first if "train/loss" in row}.items() <= dict(
        losses
    ).items()


def test_tables_pictures_and_the_model_are_in_the_run(twice):
    _, after = folders(twice)
    row = {key: value for row in rows(after) for key, value in row.items()}
    assert row["test/Perturbation detection/_type"] == "table-file"
    assert row["val/recall_curve/_type"] == row["test/detection_rates/_type"] == "images/separated"
    (model,) = [artifact for artifact in of_kind(after, "artifact") if artifact.type == "model"]
    assert model.name == f"model-{(twice / 'logs/wandb_id').read_text().strip()}"
    files = {entry.path: Path(entry.local_path) for entry in model.manifest.contents}
    written = [file for file in (twice / "model").rglob("*") if file.is_file()]
    assert files == {file.relative_to(twice / "model").as_posix(): file for file in written}


def test_no_key_is_in_the_run_folder(twice):
    files = [file for file in twice.rglob("*") if file.is_file() and not file.is_symlink()]
    assert len(files) > 30 and not any(KEY["WANDB_API_KEY"].encode() in file.read_bytes() for file in files)


def test_wandb_sync_makes_one_run_of_both_folders(twice):
    id = (twice / "logs/wandb_id").read_text().strip()
    command = [str(Path(sys.executable).with_name("wandb")), "sync", *map(str, folders(twice))]
    with stand_in() as server:
        env = environment(twice.parent, WANDB_BASE_URL=server.url, **KEY)
        done = subprocess.run(command, cwd=twice, env=env, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(server.streams) == {id}
    first, second = map(rows, folders(twice))
    history = server.history(id)
    assert [row["_step"] for row in history] == list(range(len(first) + len(second)))
    steps = [row["trainer/global_step"] for row in history]
    assert steps == [row["trainer/global_step"] for row in first + second]
    (model,) = [name for name, made in server.artifacts.items() if made["artifactTypeName"] == "model"]
    assert model in server.committed
    weights = server.uploads[f"/uploads/{model}/model.safetensors"]
    assert weights == (twice / "model/model.safetensors").read_bytes()
    assert any("media/images/test/detection_rates" in path for path in server.uploads)


def test_an_online_run_resumes_after_the_rows_that_wandb_has(trained, tmp_path):
    """Rows between the last checkpoint and the kill occur once."""
    cwd = copy_of(trained, tmp_path)
    with stand_in() as server:
        extra = {**KEY, "WANDB_BASE_URL": server.url, "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "0.5"}
        running = started([*WAITING_RUN, "test=false"], cwd, wait_at=5, **extra)
        deadline = time.monotonic() + TIMEOUT
        while not any(row["trainer/global_step"] == 4 for run in server.streams for row in server.history(run)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        running.kill()
        resume(cwd, **extra)
    (id,) = server.streams
    assert id == (cwd / "run/logs/wandb_id").read_text().strip()
    history = server.history(id)
    assert [row["_step"] for row in history] == list(range(len(history)))
    assert [row["trainer/global_step"] for row in history if "train/loss" in row] == list(range(6))


def test_two_ranks_make_one_run(workplace):
    settings = [*CORPUS, *BUDGET, *OFFLINE, *PAIR, "trainer.max_steps=1", "test=false", "hydra.run.dir=run"]
    done = run(TRAIN, settings, workplace)
    assert done.status == 0, done.stderr
    (folder,) = folders(workplace / "run")
    assert folder.name.endswith((workplace / "run/logs/wandb_id").read_text().strip())
    assert len([row for row in rows(folder) if "train/loss" in row]) == 1


def test_jobs_of_a_sweep_are_runs_of_a_group(workplace):
    settings = ["--multirun", *CORPUS, *BUDGET, *OFFLINE, "trainer.max_steps=1", "test=false", "hydra.sweep.dir=sweep"]
    done = run(TRAIN, [*settings, "seed=0,1"], workplace)
    assert done.status == 0, done.stderr
    (zero,), (one,) = (folders(workplace / "sweep" / job) for job in "01")
    (first,), (second,) = of_kind(zero, "run"), of_kind(one, "run")
    assert first.run_id != second.run_id and first.run_group == second.run_group == "sweep"
    assert all(
        len([row for row in rows(folder) if "train/loss" in row]) == 1 and of_kind(folder, "exit")
        for folder in (zero, one)
    )
