import csv

import pytest

from clvp_train.training import CSVLog, WandbLog


def read(log):
    with log.file.open() as file:
        return list(csv.DictReader(file))


def test_a_csv_log_continues_after_the_rows_that_are_kept(tmp_path):
    first = CSVLog(tmp_path)
    for step in range(5):
        first.log_metrics({"loss": step}, step)
    first.save()
    second = CSVLog(tmp_path)
    second.keep(3)
    for step in (3, 4):
        second.log_metrics({"loss": 10 * step, "new": 1}, step)
        second.save()
    assert [row["loss"] for row in read(second)] == ["0", "1", "2", "30", "40"] and (first.rows, second.rows) == (5, 5)
    assert [row["new"] for row in read(second)] == ["", "", "", "1", "1"]


def test_a_new_csv_log_replaces_an_old_one_and_flushes_by_itself(tmp_path):
    for _ in range(2):
        log = CSVLog(tmp_path, flush_logs_every_n_steps=2)
        for step in range(3):
            log.log_metrics({"loss": step}, step)
        assert len(read(log)) == 2
        log.finalize("success")
        assert [row["step"] for row in read(log)] == ["0", "1", "2"]
    log.log_hyperparams({"seed": 1})
    assert (tmp_path / "logs/hparams.yaml").read_text() == "seed: 1\n"


def wandb_log(folder, **settings):
    return WandbLog(folder, offline=True, project="p", **settings)


def test_a_resumed_run_has_the_stored_id_and_a_new_one_another(tmp_path):
    first = wandb_log(tmp_path).version
    assert wandb_log(tmp_path, resume="last.ckpt").version == first
    again = wandb_log(tmp_path).version
    assert again != first and wandb_log(tmp_path, resume="last.ckpt").version == again
    assert wandb_log(tmp_path / "elsewhere", resume="last.ckpt").version != again


@pytest.mark.parametrize("settings", [{}, {"resume": "last.ckpt"}])
def test_an_explicit_id_wins(tmp_path, monkeypatch, settings):
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    assert wandb_log(tmp_path).version == "mine"
    assert wandb_log(tmp_path, **settings).version == "mine"
    assert wandb_log(tmp_path, id="other", **settings).version == "other"
