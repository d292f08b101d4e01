from clvp_train.training import WandbLog


def log(folder, **settings):
    return WandbLog(folder, offline=True, project="p", **settings)


def test_a_run_that_goes_on_has_its_id_and_a_new_one_has_another(tmp_path):
    first = log(tmp_path).version
    assert log(tmp_path, resume="last.ckpt").version == first
    again = log(tmp_path).version
    assert again != first and log(tmp_path, resume="last.ckpt").version == again


def test_an_id_that_is_given_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    assert log(tmp_path).version == "mine" == log(tmp_path, resume="last.ckpt").version
    assert log(tmp_path, id="other", resume="last.ckpt").version == "other"


def test_a_checkpoint_from_elsewhere_begins_a_new_run(tmp_path):
    assert log(tmp_path / "one", resume="last.ckpt").version != log(tmp_path / "two", resume="last.ckpt").version
