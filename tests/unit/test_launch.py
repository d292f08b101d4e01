"""Which processes a trainer asks for, how the command is typed again, and who reports. tests/e2e/test_launch_on_ranks.py
starts them."""

import logging
import multiprocessing
import os
import signal
import sys

import hydra
import lightning as L
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.plugins.environments import LightningEnvironment
from omegaconf import OmegaConf, open_dict

from clvp_train.errors import UserError
from clvp_train.pipelines import launch
from clvp_train.pipelines.command import CONF, end_with_parent, is_first_to_fail

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")


PATH = "corpus.path='a b, \\'c\\' é'"  # as Hydra reads it


class Started(Exception):
    """In place of the processes."""


@pytest.fixture(autouse=True)
def started(monkeypatch):
    for name in (*TORCHRUN, *SRUN, "SLURM_NTASKS", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_ERROR_FILE"):
        monkeypatch.delenv(name, raising=False)

    def start(command, count):
        raise Started(count, *command)

    monkeypatch.setattr(launch, "_start", start)


@pytest.fixture
def typed(monkeypatch, tmp_path):
    """Sets the command line as Hydra has read it."""

    def type_(options=(), overrides=(), behind=(), mode="RUN", folder=tmp_path):
        monkeypatch.setattr(sys, "argv", ["some/train.py", *options, *overrides, *behind])
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose("train", list(overrides), return_hydra_config=True)
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = str(folder)
            cfg.hydra.mode = mode
        HydraConfig.instance().set_config(cfg)

    type_()
    return type_


def on_all_ranks(trainer, strategy="ddp"):
    config = {"paths": {"output": HydraConfig.get().runtime.output_dir}, "trainer": {"strategy": strategy}}
    launch.on_all_ranks(trainer, OmegaConf.create(config))


def wanted(**settings):
    given = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "plugins": LightningEnvironment()}
    return L.Trainer(**given | settings)


def set_ranks(monkeypatch, names, *values):
    for name, value in zip(names, values):
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"devices": 2, "strategy": "ddp"}, 2),
        ({"devices": "3", "strategy": "ddp"}, 3),
        ({"devices": 2}, 2),  # Lightning takes ddp
        ({"devices": 2, "strategy": "ddp_find_unused_parameters_true"}, 2),
    ],
    ids=str,
)
def test_several_devices_start_as_many_ranks(typed, settings, count):
    with pytest.raises(Started) as command:
        on_all_ranks(wanted(**settings))
    assert command.value.args[0] == count


@pytest.mark.parametrize("settings", [{"devices": 1}, {"devices": 1, "strategy": "ddp"}, {"devices": "auto"}], ids=str)
def test_one_device_starts_nothing(typed, settings):
    on_all_ranks(wanted(**settings))


@pytest.mark.parametrize("names", [TORCHRUN, SRUN], ids=["torchrun", "srun"])
@pytest.mark.parametrize("rank", [0, 3])
def test_under_a_launcher_each_process_is_a_rank(typed, monkeypatch, caplog, names, rank):
    set_ranks(monkeypatch, names, rank, 4, rank % 2)
    caplog.set_level("INFO")  # which also puts the level back
    on_all_ranks(wanted(devices=2, num_nodes=2, strategy="ddp"))
    assert logging.getLogger("any").isEnabledFor(logging.INFO) == (rank == 0)


def test_a_batch_script_of_slurm_without_srun_has_no_ranks_yet(monkeypatch, typed):
    set_ranks(monkeypatch, ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_NAME"), 0, 2, "train")
    with pytest.raises(Started):
        on_all_ranks(wanted(devices=2, strategy="ddp"))
    L.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)


def test_a_shell_of_srun_has_no_ranks_yet(monkeypatch, typed):
    set_ranks(monkeypatch, (*SRUN, "SLURM_NTASKS", "SLURM_JOB_NAME", "SLURM_PTY_PORT"), 0, 4, 0, 4, "train", 4711)
    with pytest.raises(Started):
        on_all_ranks(wanted(devices=2, strategy="ddp"))
    on_all_ranks(wanted(devices=1))
    L.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)


@pytest.mark.parametrize(
    "settings", [{"devices": 1}, {"devices": 3, "strategy": "ddp"}, {"devices": 2, "num_nodes": 2, "strategy": "ddp"}]
)
def test_a_launcher_with_another_number_of_processes(typed, monkeypatch, settings):
    set_ranks(monkeypatch, TORCHRUN, 1, 2, 1)
    with pytest.raises(UserError, match=r"is \d × \d, but the launcher has started 2 processes"):
        on_all_ranks(wanted(**settings))


def test_a_launcher_of_one_process_is_as_none(monkeypatch, typed):
    set_ranks(monkeypatch, SRUN, 0, 1, 0)
    with pytest.raises(Started):
        on_all_ranks(wanted(devices=2, strategy="ddp"))


def test_several_nodes_need_a_launcher_whose_command_is_printed(typed, tmp_path):
    typed(overrides=["trainer=ddp_cpu", "corpus=text", PATH])
    with pytest.raises(UserError) as error:
        on_all_ranks(wanted(devices=4, num_nodes=2, strategy="ddp"))
    message = str(error.value)
    assert "trainer.num_nodes=2" in message and "torchrun --nnodes 2 --nproc-per-node 4" in message
    assert message.count("trainer=ddp_cpu") == 1 and str(tmp_path) in message


def test_strategies_that_start_processes_themselves(typed):
    with pytest.raises(UserError, match="trainer.strategy=ddp_spawn.*Set it to ddp"):
        on_all_ranks(wanted(devices=2, strategy="ddp_spawn"), "ddp_spawn")


def test_a_sweep_of_several_processes(typed):
    typed(mode="MULTIRUN")
    with pytest.raises(UserError, match="--multirun"):
        on_all_ranks(wanted(devices=2, strategy="ddp"))
    on_all_ranks(wanted(devices=1))


def command(typed, **line):
    typed(**line)
    with pytest.raises(Started) as started:
        on_all_ranks(wanted(devices=2, strategy="ddp"))
    return list(started.value.args[1:])


def test_a_script_is_started_by_its_absolute_path(typed, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert command(typed)[0] == os.path.abspath("some/train.py")


def test_a_module_is_started_as_a_module(typed, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", launch.__spec__)
    assert command(typed)[:2] == ["-m", "clvp_train.pipelines.launch"]


@pytest.mark.parametrize("place", ["options", "behind"])
def test_overrides_stay_in_one_row_wherever_the_options_stand(typed, monkeypatch, place):
    """Hydra takes them in one row only."""
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    line = command(typed, overrides=["corpus=text", PATH], **{place: ["--config-dir", "my confs"]})
    assert line[1:5] == ["--config-dir", "my confs", "corpus=text", PATH]
    assert line[5].startswith("hydra.run.dir=") and line[6:] == ["hydra.output_subdir=null"]


@pytest.mark.parametrize("name", ["plain", "a b", "it's", "x=1,[y]{z}:é"])
def test_the_run_folder_reaches_the_ranks_whatever_its_name(typed, tmp_path, name):
    overrides = [part for part in command(typed, folder=tmp_path / name) if part.startswith("hydra.")]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", overrides, return_hydra_config=True)
    assert cfg.hydra.run.dir == str(tmp_path / name) and cfg.hydra.output_subdir is None


def test_one_rank_of_a_node_reports(monkeypatch, tmp_path):
    assert is_first_to_fail() and is_first_to_fail(), "no ranks: always"
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / str(rank) / "error.json"))
        assert is_first_to_fail() == (rank == 0)


@pytest.mark.parametrize(
    ("devices", "local_rank", "num_gpus", "expected"),
    [
        ("cuda:2 cuda:5", 1, 8, 5),
        ("cuda:3", 0, 8, 3),
        ("cpu cpu cpu", 2, 2, 0),  # drawn on GPUs, trained on the CPU
        ("cpu cpu", 1, 0, None),
        ("cpu", 0, 8, None),
    ],
)
def test_cuda_means_the_gpu_of_this_rank(devices, local_rank, num_gpus, expected):
    trainer = wanted(devices=2, strategy="ddp")
    trainer.strategy.parallel_devices = [torch.device(name) for name in devices.split()]
    assert launch._gpu(trainer, local_rank, num_gpus) == expected


def as_orphan():
    os.environ |= {"TORCHELASTIC_RUN_ID": "1", launch.PARENT: "1"}
    end_with_parent()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends the ranks of a killed parent")
def test_a_rank_whose_parent_was_killed_before_ends(typed):
    rank = multiprocessing.get_context("fork").Process(target=as_orphan)
    rank.start()
    rank.join(60)
    assert rank.exitcode == -signal.SIGKILL


def test_one_device_has_no_list_of_devices():
    assert launch._gpu(wanted(devices=1), 0, 8) is None
