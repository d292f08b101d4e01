"""Which run a command resumes, by what is in its folder. tests/e2e/test_resume.py trains."""

import multiprocessing
import os
import time
from pathlib import Path

import hydra
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from clvp_train.errors import UserError
from clvp_train.io import is_locked, locked
from clvp_train.pipelines.command import CONF
from clvp_train.pipelines.resume import _read_mark, open_run, reopen, resolve_resume, write_mark

# the last one of an earlier version, which resuming drops
OWN = ["trainer.max_epochs=11", "trainer.max_steps=5", "seed=3", "training.chunk_size=16"]


def write_run(folder: Path, files: str) -> None:
    """Files by name; `old` and `bad` are those of an earlier version and damaged ones."""
    (folder / "checkpoints").mkdir(parents=True)
    stored = {"overrides": OWN} | ({} if "old" in files else {"has_mark": True})
    if "ckpt" in files:
        torch.save({"clvp_run": stored}, folder / "checkpoints/last.ckpt")
    if "bad" in files:
        (folder / "checkpoints/last.ckpt").write_bytes(b"part")
    if "model" in files:
        (folder / "model").mkdir()
    if "mark" in files:
        write_mark(OmegaConf.create({"paths": {"output": folder}, "trainer": {"max_epochs": 11, "max_steps": 5}}), 0.5)


def typed(folder: Path, *overrides: str):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", [f"hydra.run.dir={folder}", *overrides], return_hydra_config=True)
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = cfg.paths.output = str(folder)
            cfg.hydra.mode = "RUN"
            cfg.hydra.overrides.task = list(overrides)
        HydraConfig.instance().set_config(cfg)
        return resolve_resume(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]))


@pytest.mark.parametrize(
    ("files", "overrides", "outcome"),
    [
        ("", ["resume=auto"], "scratch"),
        ("", [], "scratch"),
        ("ckpt", [], "holds a run. Resume it with resume="),
        ("model", ["seed=1"], "holds a run"),
        ("ckpt", ["resume=auto"], "resumes"),
        ("ckpt model", ["resume=auto"], "resumes"),  # stopped before its report was complete
        ("ckpt old model", ["resume=auto"], "finished"),
        ("ckpt model mark", ["resume=auto"], "finished"),
        ("ckpt model mark", ["resume=auto", "trainer.max_steps=5"], "finished"),
        ("ckpt model mark", ["resume=auto", "trainer.max_steps=6"], "resumes"),
        ("model mark", ["resume=auto"], "finished"),  # checkpoints were deleted
        ("bad", ["resume=auto"], "no intact checkpoint. Start a new run in another folder"),
    ],
)
def test_the_files_in_a_folder_decide(tmp_path, files, overrides, outcome):
    folder = tmp_path / "run"
    write_run(folder, files)
    if outcome not in ("scratch", "resumes", "finished"):
        with pytest.raises(UserError, match=outcome):
            typed(folder, *overrides)
        return
    start = typed(folder, *overrides)
    assert start.is_finished == (outcome == "finished") and start.folder == folder
    assert start.is_finished or bool(start.cfg.resume) == (outcome == "resumes")
    if outcome == "resumes":
        assert start.cfg.seed == 3 and not any("resume" in override for override in start.overrides)
        assert "training.chunk_size=16" not in start.overrides and "seed=3" in start.overrides
        with open_run(start):
            assert (folder / "finished.json").exists() == ("mark" in files)
            reopen(start)
            assert not (folder / "finished.json").exists() and is_locked(folder)
        assert not is_locked(folder) and "seed=3" in (folder / "config/overrides.yaml").read_text()


def hold(folder, connection):
    with locked(folder):
        if os.fork() == 0:  # as a worker of a DataLoader, which outlives a killed parent for some seconds
            time.sleep(5)
            os._exit(0)
        connection.send("locked")
        connection.recv()


def test_a_folder_is_locked_until_its_process_is_killed(tmp_path):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path, theirs))
    process.start()
    ours.recv()
    with pytest.raises(UserError, match=f"process {process.pid} on .* is training in this folder"), locked(tmp_path):
        pass
    process.kill()
    process.join()
    with locked(tmp_path):
        assert is_locked(tmp_path)


def test_the_mark_holds_the_length_of_the_run_and_is_read_as_written_or_not_at_all(tmp_path):
    write_run(tmp_path, "mark")
    assert _read_mark(tmp_path) == {"length": [11, 5], "score": 0.5}
    for damaged in ((tmp_path / "finished.json").read_text().replace("11", "10"), "[]"):
        (tmp_path / "finished.json").write_text(damaged)
        assert _read_mark(tmp_path) == {}
