"""Runs that are killed or stopped and resumed: log and weights equal those of an undisturbed run bit for bit."""

import csv
import os
import pickle
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.e2e.commands import ROOT, TRAIN, run, start
from tests.e2e.conftest import BUDGET, CORPUS

PAIR = ["trainer=ddp_cpu", "trainer.devices=2"]
# three steps an epoch, with noise of every kind, and checkpoints in mid-epoch
LONG = [*CORPUS, *BUDGET, "trainer.max_steps=8", "test=false", "callbacks.checkpoint.every_n_train_steps=2"]
LONG += ["callbacks=[default,ema]", "model.config.text_config.dropout=0.1", "training.voice_mask_percentage=0.1"]
LONG += ["data.num_hard_negatives=1", "codes.num_candidates=1"]
WAITING = """
import os, time
from pathlib import Path
import lightning as L

def wait():
    Path("waiting", os.environ.get("RANK", "0")).write_text(str(os.getpid()))
    while not Path("go").exists():
        time.sleep(0.02)

class At(L.Callback):
    def on_train_batch_start(self, trainer, *_):
        if os.environ.get("WAIT_AT") == str(trainer.global_step):
            wait()

    def teardown(self, trainer, module, stage):
        if os.environ.get("WAIT_AT") == "end":
            wait()
"""


@pytest.fixture
def cwd(workplace):
    (workplace / "waiting.py").write_text(WAITING)
    return workplace


def started(arguments, cwd, wait_at, ranks=1, **extra):
    """A command under way that waits before a step, or for "end" when training has ended."""
    shutil.rmtree(cwd / "waiting", ignore_errors=True)
    (cwd / "waiting").mkdir()
    (cwd / "go").unlink(missing_ok=True)
    running = start(TRAIN, arguments, cwd, PYTHONPATH=f"{ROOT}{os.pathsep}{cwd}", WAIT_AT=str(wait_at), **extra)
    deadline = time.monotonic() + 120
    while len([file for file in (cwd / "waiting").iterdir() if file.read_text()]) < ranks:
        assert running.process.exitcode is None and time.monotonic() < deadline, running.files[1].read_text()
        time.sleep(0.05)
    return running


def disturbed(number, arguments, cwd, wait_at, ranks=1):
    """Exit status and stderr of a command that gets a signal in a step."""
    running = started(arguments, cwd, wait_at, ranks)
    if number == signal.SIGKILL and ranks > 1:
        os.kill(int((cwd / "waiting" / "1").read_text()), number)  # the others are ended by the command itself
    else:
        os.kill(running.process.pid, number)
        (cwd / "go").touch()
    done = running.finish()
    return done.status, done.stderr


def losses(output):
    with (output / "logs/metrics.csv").open() as file:
        return [(row["step"], row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def rows(output):
    with (output / "logs/metrics.csv").open() as file:
        return len(list(csv.DictReader(file)))


def weights(output):
    return torch.load(output / "checkpoints/last.ckpt", weights_only=True)


def assert_same(output, undisturbed):
    assert losses(output) == losses(undisturbed) and len(losses(output)) == 8 and rows(output) == rows(undisturbed)
    ours, theirs = weights(output), weights(undisturbed)
    assert ours["global_step"] == theirs["global_step"] == 8
    for kind in ("state_dict", "current_model_state"):
        assert ours[kind].keys() == theirs[kind].keys()
        assert all(torch.equal(ours[kind][name], theirs[kind][name]) for name in ours[kind]), kind
    names = [sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in (output, undisturbed)]
    assert names[0] == names[1] and len(names[0]) == 3
    assert not list(output.rglob("*.partial")) and (output / "model").is_dir()


def test_a_run_that_is_killed_and_stopped_repeatedly_equals_an_undisturbed_run(cwd):
    """test_sources.py does the same with two processes and two sources of codes."""
    check_repeated_stops(cwd, LONG)


def check_repeated_stops(cwd, settings, ranks=1):
    """Kills a run, stops it with two signals (two processes: with one), resumes it each time, and compares it with an
    undisturbed one. Returns its folder."""
    settings = [*settings, *(PAIR if ranks > 1 else []), "+callbacks.at._target_=waiting.At"]
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{cwd}"}
    done = run(TRAIN, [*settings, "hydra.run.dir=undisturbed"], cwd, **env)
    assert done.status == 0, done.stderr

    status, stderr = disturbed(signal.SIGKILL, settings, cwd, 3, ranks)
    assert status in (-signal.SIGKILL, 128 + signal.SIGKILL)
    (output,) = (cwd / "outputs/train").iterdir()
    assert torch.load(output / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2

    # the settings of the run are read from its checkpoint
    for number, wait_at in ((signal.SIGTERM, 4), (signal.SIGUSR1, 6))[ranks - 1 :]:
        status, stderr = disturbed(number, ["resume=auto", "trust_run_folder=true"], cwd, wait_at, ranks)
        assert status == 128 + number and "Traceback" not in stderr, stderr
        stopped = [line for line in stderr.splitlines() if line.startswith("stopped by")]
        assert len(stopped) == 1 and f"{number.name} after step {wait_at + 1}" in stopped[0], stderr
        assert f"resume={output.relative_to(cwd)}" in stopped[0] and not (output / "model").exists()
        assert weights(output)["global_step"] == wait_at + 1

    done = run(TRAIN, [f"resume={output}", "trust_run_folder=true"], cwd, **env)
    assert done.status == 0, done.stderr
    assert list((cwd / "outputs/train").iterdir()) == [output]
    assert_same(output, cwd / "undisturbed")
    return output


@pytest.fixture(scope="module")
def stopped(trained, tmp_path_factory):
    """A run that was stopped in its second epoch."""
    cwd = tmp_path_factory.mktemp("stopped")
    shutil.copy(trained.cwd / "sentences.txt", cwd)
    shutil.copytree(trained.cwd / "outputs" / "codes", cwd / "outputs" / "codes")
    (cwd / "waiting.py").write_text(WAITING)
    settings = [*CORPUS, *BUDGET, "callbacks.checkpoint.every_n_train_steps=2", "+callbacks.at._target_=waiting.At"]
    status, stderr = disturbed(signal.SIGTERM, [*settings, "trainer.max_steps=6", "hydra.run.dir=run"], cwd, 4)
    assert status == 128 + signal.SIGTERM, stderr
    return cwd


@pytest.fixture
def again(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "again")
    return tmp_path / "again"


def resume(cwd, *overrides):
    return run(TRAIN, ["resume=run", "trust_run_folder=true", *overrides], cwd, PYTHONPATH=f"{ROOT}{os.pathsep}{cwd}")


def test_a_damaged_checkpoint_is_replaced_by_the_previous_one(again):
    last = again / "run/checkpoints/last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    done = resume(again)
    assert done.status == 0 and "last.ckpt is damaged; resuming from an earlier checkpoint" in done.stdout, done.stderr
    assert "before-last.ckpt at epoch 1, batch 1" in done.stdout and weights(again / "run")["global_step"] == 6


def test_a_run_without_an_intact_checkpoint_is_refused(again):
    for file in (again / "run/checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:5000])
    done = resume(again)
    assert done.status == 2 and "resume=run: no intact checkpoint" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.config.projection_dim=64"], ["model (", "model=pretrained model.checkpoint="]),
        (["split.val_percent=14"], ["fingerprint of the pairs ("]),
        (["data.batch_size=16"], ["data.batch_size (32 then, 16 now)"]),
        (["optim.lr=1e-5"], ["optim.lr (0.001 then, 1e-05 now)"]),
        (["seed=1"], ["seed (0 then, 1 now)"]),
    ],
    ids=lambda value: value[0] if "=" in value[0] else "",
)
def test_changed_settings_that_would_change_the_run_are_refused(again, overrides, words):
    done = resume(again, *overrides)
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.status == 2 and all(word in error for word in words), error
    assert weights(again / "run")["global_step"] == 5


def test_more_steps_and_more_ranks_are_reported(again):
    done = resume(again, "trainer.max_steps=7", *PAIR)
    assert done.status == 0, done.stderr
    assert "number of processes (1 then, 2 now)" in done.stdout and "number of steps (6 then, 7 now)" in done.stdout
    assert [int(step) for step, _ in losses(again / "run")] == list(range(7))


def test_a_requeued_job_finishes_its_run_and_then_has_nothing_to_do(again):
    """The same command each time, as a cluster starts it."""
    settings = [*CORPUS, *BUDGET, "trainer.max_steps=6", "callbacks.checkpoint.every_n_train_steps=2", "test=false"]
    command = [*settings, "+callbacks.at._target_=waiting.At", "resume=auto", "hydra.run.dir=run"]
    running = started(command, again, "end")
    second = resume(again)
    assert second.status == 2 and f"process {running.process.pid} on " in second.stderr, second.stderr
    os.kill(running.process.pid, signal.SIGUSR1)
    time.sleep(0.05)
    running.process.terminate()  # by --kill-on-bad-exit=1, because another rank has exited already
    done = running.finish()
    assert done.status == 128 + signal.SIGUSR1 and "Resume with resume=run" in done.stderr, done.stderr
    assert not (again / "run/model").exists()
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{again}"}
    finishing, finished = (run(TRAIN, command, again, **env) for _ in range(2))
    assert finishing.status == 0 and "at epoch 2, batch 0" in finishing.stdout, finishing.stderr
    assert finished.status == 0 and "resume=run: the run is finished" in finished.stdout, finished.stderr
    assert "learning rate" not in finishing.stdout and "resuming from" not in finished.stdout
    assert (again / "run/finished.json").exists()
    scratch = run(TRAIN, command[:-2] + command[-1:], again, **env)
    assert scratch.status == 2 and "hydra.run.dir=run: holds a run" in scratch.stderr, scratch.stderr


def test_a_finished_run_is_extended(again):
    """In a folder that has been moved, although the best checkpoint that last.ckpt names is gone."""
    (again / "run/checkpoints/best-step-3.ckpt").unlink()
    assert resume(again, "test=false").status == 0
    done = resume(again, "trainer.max_steps=8")
    assert done.status == 0 and "number of steps (6 then, 8 now)" in done.stdout, done.stderr
    assert "the learning rate changes from 1e-05 to 0.000196, because its schedule" in done.stdout, done.stdout
    assert [int(step) for step, _ in losses(again / "run")] == list(range(8))
    assert [path.name for path in (again / "run/checkpoints").glob("best-*")] == ["best-step-6.ckpt"]


def test_tensorboard_events_continue_from_the_checkpoint(cwd):
    settings = [*LONG, "logger=tensorboard", "+callbacks.at._target_=waiting.At", "hydra.run.dir=run"]
    disturbed(signal.SIGKILL, settings, cwd, 5)
    done = run(TRAIN, ["resume=run", "trust_run_folder=true"], cwd, PYTHONPATH=f"{ROOT}{os.pathsep}{cwd}")
    assert done.status == 0, done.stderr
    events = EventAccumulator(str(cwd / "run/logs"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(8))
    validated = [event.step for event in events.Scalars("val/R@1")]
    assert validated == [event.step for event in events.Images("val/recall_curve")] and validated[:2] == [2, 5]


def test_a_class_that_only_the_run_names_needs_trust(again):
    done = run(TRAIN, ["resume=run"], again, PYTHONPATH=f"{ROOT}{os.pathsep}{again}")
    assert done.status == 2 and "callbacks.at._target_=waiting.At" in done.stderr, done.stderr
    assert "trust_run_folder=true" in done.stderr and weights(again / "run")["global_step"] == 5


class Payload:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize(("name", "words"), [("nowhere", "not found"), ("pickle.ckpt", "corrupt or not a checkpoint")])
def test_what_is_no_run_is_refused(workplace, name, words):
    (workplace / "pickle.ckpt").write_bytes(pickle.dumps(Payload()))
    done = run(TRAIN, [f"resume={name}"], workplace)
    assert done.status == 2 and f"error: resume={name}: {words}" in done.stderr and "Traceback" not in done.stderr
    assert not (workplace / "executed").exists()


@pytest.mark.parametrize("kind", ["experiment", "multirun"])
def test_resume_is_read_from_the_composed_config(again, kind):
    """From an experiment file that also names the run folder, and in each job of a sweep."""
    if kind == "experiment":
        (again / "mine/experiment").mkdir(parents=True)
        yaml = "# @package _global_\nresume: auto\ntrust_run_folder: true\nhydra:\n  run:\n    dir: run\n"
        (again / "mine/experiment/requeued.yaml").write_text(yaml)
        command, output = ["--config-dir", "mine", "experiment=requeued"], again / "run"
    else:
        shutil.move(again / "run", again / "sweep/0")
        command, output = ["--multirun", "hydra.sweep.dir=sweep", "resume=auto", "test=false"], again / "sweep/0"
        command.append("+callbacks.at._target_=waiting.At")
    done = run(TRAIN, command, again, PYTHONPATH=f"{ROOT}{os.pathsep}{again}")
    assert done.status == 0 and "resuming from" in done.stdout, done.stdout + done.stderr
    assert weights(output)["global_step"] == 6 and (output / "model").is_dir()
