"""One command, two real processes: what they write, and what is left of them when one dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clvp_train.pairs import read_pairs
from tests.e2e.commands import EVALUATE, ROOT, TRAIN, environment, execute
from tests.e2e.conftest import BUDGET, CORPUS, write_sentences

PAIR = ["trainer=ddp_cpu", "trainer.devices=2"]
REPORT = """
import os, time
from pathlib import Path
import lightning as L
from clvp_train.pairs import ARCodes
from clvp_train.corpus import TextLines

def report(event):
    Path("reported").mkdir(exist_ok=True)
    Path("reported", f"{event}-{os.environ.get('RANK', 'alone')}").write_text(str(os.getpid()))

class Codes(ARCodes):
    def encode(self, *arguments):
        report("drawing")
        return super().encode(*arguments)

class Training(L.Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 2:
            report("training")

class Waiting(TextLines):
    def __init__(self, path):
        report("waiting")
        time.sleep(600)
"""


def reported(folder: Path, event: str) -> dict[str, int]:
    """Process by rank."""
    files = (folder / "reported").glob(f"{event}-*")
    return {file.name.removeprefix(f"{event}-"): int(text) for file in files if (text := file.read_text())}


def search(*folders: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *folders)))}


def test_both_ranks_of_generate_work_and_write_the_pairs_of_one(trained, tmp_path):
    cwd = tmp_path / "it's a folder"
    cwd.mkdir()
    write_sentences(cwd)
    (cwd / "report.py").write_text(REPORT)
    overrides = [*CORPUS, *PAIR, "codes._target_=report.Codes", "codes.shard_size=40", "hydra.run.dir=runs/one run"]
    done = execute(["-m", "clvp_train.generate", *overrides], cwd, **search(cwd))
    assert done.status == 0, done.stderr
    assert reported(cwd, "drawing").keys() == {"0", "1"}
    (folder,) = (cwd / "outputs" / "codes").glob("[!.]*")
    drawn, alone = (read_pairs(pairs).sort_by("id") for pairs in (folder, trained.pairs))  # shards order them by split
    assert len(list(folder.glob("train-*.parquet"))) == 4 and drawn.equals(alone)
    assert done.stdout.count("pairs: ") == 1
    assert "Traceback" not in done.stderr
    assert {path.name for path in cwd.iterdir()} - {"__pycache__"} == {
        "report.py",
        "reported",
        "sentences.txt",
        "outputs",
        "runs",
    }
    assert {path.name for path in (cwd / "runs/one run").iterdir()} == {"config", "generate.log"}
    typed = (cwd / "runs/one run/config/overrides.yaml").read_text()
    assert "trainer=ddp_cpu" in typed and "hydra." not in typed


def test_an_own_config_folder_and_an_error_that_occurs_on_both_ranks(workplace):
    """Reported once, with the exit status of a user error, in the one run folder."""
    (workplace / "mine/experiment").mkdir(parents=True)
    (workplace / "mine/experiment/odd.yaml").write_text("# @package _global_\ndata:\n  batch_size: 33\n")
    budget = [setting for setting in BUDGET if not setting.startswith("data.batch_size")]
    overrides = [*CORPUS, *budget, *PAIR, "experiment=odd", "--config-dir", "mine"]
    done = execute([str(ROOT / TRAIN), *overrides], workplace)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.status == 2 and len(errors) == 1 and "data.batch_size=33" in errors[0], done.stderr
    assert "Traceback" not in done.stderr and "exitcode" not in done.stderr
    assert len(list((workplace / "outputs/train").iterdir())) == 1


def start(command: list[str], cwd: Path) -> subprocess.Popen:
    (cwd / "report.py").write_text(REPORT)
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env=environment(cwd, **search(cwd)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_ranks(process: subprocess.Popen, cwd: Path, event: str) -> dict[str, int]:
    deadline = time.monotonic() + 120
    while len(reported(cwd, event)) < 2:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.1)
    return reported(cwd, event)


def runs(pid: int) -> bool:
    """Whether a process is there, and no zombie that nobody has asked for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def assert_all_end(pids, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(map(runs, pids)):
        assert time.monotonic() < deadline, "a rank is left behind"
        time.sleep(0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_rank_that_is_killed_in_training_ends_the_run(workplace, rank):
    endless = ["trainer.max_steps=-1", "trainer.max_epochs=100000", "+callbacks.report._target_=report.Training"]
    process = start([str(ROOT / TRAIN), *CORPUS, *BUDGET, *PAIR, *endless], workplace)
    ranks = wait_for_ranks(process, workplace, "training")
    os.kill(ranks[rank], signal.SIGKILL)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGKILL, stderr
    assert f"error: rank {rank} was killed by SIGKILL, and the other ranks were ended" in stderr
    assert not any(map(runs, ranks.values()))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends the ranks of a killed parent")
@pytest.mark.parametrize(
    ("script", "kill", "status"),
    [
        ("-m clvp_train.generate", signal.SIGKILL, -9),
        ("-m clvp_train.generate", signal.SIGINT, 130),
        (f"{ROOT / EVALUATE} checkpoint={{run}}/model", signal.SIGTERM, 143),
    ],
)
def test_ranks_do_not_outlive_the_command(trained, workplace, script, kill, status):
    command = script.format(run=trained.output).split()
    process = start([*command, *CORPUS, *PAIR, "corpus._target_=report.Waiting"], workplace)
    ranks = wait_for_ranks(process, workplace, "waiting")
    process.send_signal(kill)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == status and "Traceback" not in stderr
    assert kill == signal.SIGKILL or "Run the same command again" in stderr
    assert_all_end(ranks.values(), 10)
