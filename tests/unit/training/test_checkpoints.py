import csv
import resource
import signal

import pytest
import torch

from clvp_train.errors import UserError
from clvp_train.pipelines.resume import with_run
from clvp_train.training import AtomicCheckpointIO, CSVLog, LastCheckpoint
from clvp_train.training.checkpointing import is_complete
from clvp_train.training.run_state import newest_complete

CONTENT = {"state_dict": {"weight": torch.arange(5000.0)}, "global_step": 3}


@pytest.fixture
def checkpoint(tmp_path):
    AtomicCheckpointIO().save_checkpoint(CONTENT, tmp_path / "made" / "a.ckpt")
    return tmp_path / "made" / "a.ckpt"


def test_what_is_written_opens_again_and_nothing_lies_beside_it(checkpoint):
    stored = AtomicCheckpointIO().load_checkpoint(checkpoint, weights_only=True)
    assert torch.equal(stored["state_dict"]["weight"], CONTENT["state_dict"]["weight"]) and is_complete(checkpoint)
    assert [file.name for file in checkpoint.parent.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("place", [0.0, 0.3, 0.9])
def test_a_changed_byte_is_noticed(checkpoint, place):
    content = bytearray(checkpoint.read_bytes())
    content[int(place * len(content))] ^= 1
    checkpoint.write_bytes(content)
    assert not is_complete(checkpoint)


@pytest.mark.parametrize("length", [0, 100, 10_000])
def test_a_file_that_ends_early_is_noticed(checkpoint, length):
    checkpoint.write_bytes(checkpoint.read_bytes()[:length])
    assert not is_complete(checkpoint)


def test_a_full_disk_is_told_and_the_file_before_stands(checkpoint):
    before, limits = checkpoint.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"a.ckpt cannot be written .*make room; the checkpoint before it stands"):
            AtomicCheckpointIO().save_checkpoint(CONTENT, checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert checkpoint.read_bytes() == before and len(list(checkpoint.parent.iterdir())) == 1


def test_the_newest_whole_one_is_chosen(tmp_path):
    for name in ("best-step=9.ckpt", "before-last.ckpt", "last.ckpt"):
        AtomicCheckpointIO().save_checkpoint(CONTENT, tmp_path / name)
    assert newest_complete(tmp_path) == (tmp_path / "last.ckpt", [])
    assert newest_complete(tmp_path, tmp_path / "best-step=9.ckpt") == (tmp_path / "best-step=9.ckpt", [])
    (tmp_path / "last.ckpt").write_bytes(b"half")
    assert newest_complete(tmp_path) == (tmp_path / "before-last.ckpt", [tmp_path / "last.ckpt"])
    (tmp_path / "before-last.ckpt").unlink()
    assert newest_complete(tmp_path) == (tmp_path / "best-step=9.ckpt", [tmp_path / "last.ckpt"])


@pytest.mark.parametrize(
    ("name", "value"), [("every_n_train_steps", 0), ("every_n_minutes", -1), ("every_n_minutes", "x")]
)
def test_a_setting_that_makes_no_sense_is_named(tmp_path, name, value):
    with pytest.raises(UserError, match=f"callbacks.checkpoint.{name}={value}"):
        LastCheckpoint(tmp_path, **{name: value})


def read(log):
    with open(f"{log.log_dir}/metrics.csv") as file:
        return list(csv.DictReader(file))


def test_a_log_goes_on_behind_the_rows_that_are_kept(tmp_path):
    first = CSVLog(tmp_path, name="logs", version="")
    for step in range(5):
        first.log_metrics({"loss": step}, step)
    first.save()
    assert first.rows == 5
    second = CSVLog(tmp_path, name="logs", version="")
    second.keep(3)
    second.log_metrics({"loss": 30, "new": 1}, 3)
    second.save()
    assert [row["loss"] for row in read(second)] == ["0", "1", "2", "30"] and second.rows == 4
    assert [row["new"] for row in read(second)] == ["", "", "", "1"]


@pytest.fixture
def runs(tmp_path):
    for name in ("old", "new", "finished"):
        (tmp_path / name / "config").mkdir(parents=True)
        (tmp_path / name / "config/overrides.yaml").write_text("- optim.lr=0.1\n- +extra=1\n- resume=auto\n")
        AtomicCheckpointIO().save_checkpoint(CONTENT, tmp_path / name / "checkpoints/last.ckpt")
    (tmp_path / "finished/model").mkdir()
    return tmp_path


def test_the_newest_unfinished_run_goes_on_with_its_own_settings_and_those_typed_now(runs):
    found = with_run(["--config-dir", "mine", "optim.lr=0.2", "resume=auto", "seed=1"], runs)
    checkpoint = runs / "new/checkpoints/last.ckpt"
    assert found == [
        *("--config-dir", "mine", "optim.lr=0.2"),
        *("+extra=1", f"hydra.run.dir='{runs / 'new'}'", f"resume='{checkpoint}'", "seed=1"),
    ]
    assert sorted(with_run(found, runs)) == sorted(found), "typed again on every rank, it stays the same"


def test_a_command_that_asks_for_nothing_stays_as_it_is(runs):
    for arguments in ([], ["seed=1"], ["resume=null", "seed=1"]):
        assert with_run(arguments, runs) == arguments


def test_nothing_to_go_on_from_begins_anew(runs, capsys):
    assert with_run(["resume=auto", "hydra.run.dir=none"], runs) == ["resume=null", "hydra.run.dir=none"]
    assert "begins anew" in capsys.readouterr().err
