"""`evaluate.py` takes the settings of the run that a checkpoint is from."""

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from clvp_train.errors import UserError
from clvp_train.hub import settings_file
from clvp_train.io.digests import recording_digests
from clvp_train.pipelines.command import CONF
from clvp_train.pipelines.run_settings import with_run_settings

SETTINGS = """
pairs: null
corpus: {_target_: clvp_train.corpus.LJSpeech, root: LJSpeech-1.1}
codes: {_target_: clvp_train.pairs.StoredCodes, path: "${paths.data}/codes.parquet", bad_rows: skip, shard_size: 1024, weight: 1}
tortoise: {_target_: clvp_train.tortoise.FrozenTortoise.from_pretrained, name_or_path: mine, device: cuda}
split: {test_percent: 20, val_percent: 10}
data: {batch_size: 7, eval_pairs: null, val_pairs: null}
"""


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "run/model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "training_config.yaml").write_text(SETTINGS)
    return folder


@pytest.fixture
def taken(model):
    """The config of `evaluate.py checkpoint=RUN/model` with more overrides."""

    def compose(*overrides):
        overrides = [f"checkpoint={model}", "paths.output=out", *overrides]
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose("evaluate", overrides, return_hydra_config=True)
            HydraConfig.instance().set_config(cfg)
            with open_dict(cfg):
                del cfg["hydra"]
            return with_run_settings(cfg, str(model))

    yield compose
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize(
    ("checkpoint", "has_settings"),
    [
        ("run/model", True),
        ("run/model/config.json", True),
        ("run/checkpoints/last.ckpt", True),
        ("run/last.ckpt", False),
        ("run/none.ckpt", False),
    ],
)
def test_the_settings_of_a_checkpoint(model, checkpoint, has_settings):
    (model.parent / "checkpoints").mkdir()
    for file in (model.parent / "checkpoints/last.ckpt", model.parent / "last.ckpt"):
        file.touch()
    found = settings_file(model.parent.parent / checkpoint)
    assert found == (model / "training_config.yaml" if has_settings else None)


def test_data_tortoise_and_splits_are_those_of_the_run(taken, caplog):
    caplog.set_level("INFO")
    cfg = taken("tortoise.device=cpu", "split.val_percent=0")
    assert cfg.corpus.root == "LJSpeech-1.1" and cfg.codes.path.endswith("data/codes.parquet")
    assert (cfg.tortoise.name_or_path, cfg.tortoise.device) == ("mine", "cpu"), "a single setting changes what is taken"
    assert cfg.split == {"test_percent": 20, "val_percent": 0} and cfg.data.batch_size != 7
    assert "training_config.yaml: " in caplog.text and "corpus=LJSpeech LJSpeech-1.1, codes=" in caplog.text


@pytest.mark.parametrize("given", ["corpus=text", "codes=dvae", "pairs=mine", "+codes@codes.more=stored"])
def test_a_command_that_chooses_data_takes_none_of_the_runs(taken, given):
    cfg = taken(given, "split=default", *(["corpus.path=x"] if given == "corpus=text" else []))
    assert "root" not in cfg.corpus and cfg.split.test_percent == 5
    assert cfg.tortoise.name_or_path == "mine"


@pytest.mark.parametrize(
    ("was", "instead", "message"),
    [
        (
            "clvp_train.corpus.LJSpeech",
            "os.system",
            "training_config.yaml: the settings name code: corpus._target_=os.system",
        ),
        ("root: LJSpeech-1.1", "root: '${oc.env:HOME}'", r"calls a resolver: \$\{oc.env:"),
        ("test_percent: 20", "test_percent: 200", "split.test_percent must be a number"),
        ("corpus: {", "corpus: {{", "training_config.yaml: damaged"),
    ],
)
def test_a_run_folder_sets_values_only(taken, model, was, instead, message):
    with recording_digests(model):
        pass
    (model / "training_config.yaml").write_text(SETTINGS.replace(was, instead))
    with pytest.raises(UserError, match="training_config.yaml: damaged or edited"):
        taken()
    (model / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match=message):
        taken()


def test_code_of_a_trusted_run_is_taken(taken, model):
    (model / "training_config.yaml").write_text(SETTINGS.replace("clvp_train.corpus.LJSpeech", "mypkg.Corpus"))
    assert taken("trust_run_folder=true").corpus._target_ == "mypkg.Corpus"


def test_a_checkpoint_without_settings_says_so(taken, model, caplog):
    (model / "training_config.yaml").unlink()
    assert taken().corpus._target_ == "clvp_train.corpus.TextLines"
    assert "has no training_config.yaml; evaluating on TextLines" in caplog.text
