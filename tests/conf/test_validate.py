"""Settings are checked against the schemas: types, ranges, choices and names, all findings in one error."""

import inspect

import hydra
import lightning as L
import pytest
import yaml
from hydra.utils import get_object
from omegaconf import OmegaConf, open_dict

from clvp_train.errors import UserError
from clvp_train.pipelines.command import CONF
from clvp_train.pipelines.config import BY_TARGET, validate, without_secrets
from clvp_train.pipelines.schema import Demo, Root
from clvp_train.pipelines.schema_training import Trainer


@pytest.fixture(scope="module")
def composed():
    """Composes a command once for all tests."""
    configs = {}

    def config(*overrides):
        if overrides not in configs:
            with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
                configs[overrides] = hydra.compose("train", ["paths.output=out", *overrides])
        return configs[overrides].copy()

    return config


def errors(cfg, settings, root=Root):
    with open_dict(cfg):
        for assignment in settings.split():
            key, value = assignment.split("=", 1)
            OmegaConf.update(cfg, key, yaml.safe_load(value), force_add=True)
    try:
        validate(cfg, root)
    except UserError as error:
        return str(error)
    return ""


def test_the_defaults_are_valid(composed):
    assert errors(composed(), "") == errors(composed("codes=dvae", "loss=sigmoid", "callbacks=[default,ema]"), "") == ""


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("seed=-1", "seed must be an integer ≥ 0 (got -1)"),
        ("seed=abc", "got abc"),
        ("test=perhaps", "test must be true or false"),
        ("primary_mode=most", "one of min, max"),
        ("split.test_percent=-1", "split.test_percent must be a number ≥ 0 and ≤ 100"),
        ("data.batch_size=1", "data.batch_size must be an integer ≥ 2 (got 1): contrastive training needs negatives."),
        ("data.batch_size=1.5", "got 1.5"),
        ("data.batch_size=true", "got true"),
        ("data.batch_size='8'", "an integer"),
        ("data.batch_size=null", "got null"),
        ("data.eval_batch_size=0", "≥ 1"),
        ("data.num_workers=-1", "≥ 0"),
        ("data.pin_memory=1", "true or false"),
        ("data.hard_negatives=[mumble]", "cut_off"),
        ("data.hard_negatives=[]", "at least 1"),
        ("data.perturbation_share=[0.1]", "2 items"),
        ("data.perturbation_share=[0,0.5]", "> 0"),
        ("data.perturbation_share=[0.5,0.1]", "in this order"),
        ("data.judged_positive_share=0", "> 0 and ≤ 1"),
        ("data.max_codes=3", "≥ 4"),
        ("model.config.projection_dim=0", "≥ 1"),
        ("model.config.padding=none", "mask, tortoise"),
        ("model.config.text_config.num_hidden_layers=0", "≥ 1"),
        ("model.config.text_config.num_hidden_layers=10000000", "≥ 1 and ≤ 1000"),
        ("seed=4294967296", "≥ 0 and ≤ 4294967295"),
        ("data.num_hard_negatives=100000", "≤ 1000"),
        ("codes.ar.num_candidates=100000000", "≤ 10000"),
        ("training.chunk_tokens=100000000000000000000", "≥ 0"),
        ("optim.lr=.inf", "a number ≥ 0 (got inf)"),
        ("trainer.accumulate_grad_batches=0", "≥ 1"),
        ("trainer.check_val_every_n_epoch=0", "≥ 1 or null"),
        ("training.chunk_tokens=-1", "≥ 0"),
        ("training.voice_mask_percentage=15", "< 1"),
        ("training.compile=sometimes", "true or false"),
        ("optim.lr=abc", "optim.lr must be a number ≥ 0 (got abc)"),
        ("optim.lr=-1", "≥ 0"),
        ("optim.betas=0.9", "a list of 2 items"),
        ("optim.betas=[0.9,1.0]", "< 1"),
        ("optim.text_lr=-1", "or null"),
        ("optim.freeze=[mouth]", "text, speech"),
        ("optim.freeze=[text,speech]", "one tower must be trained"),
        ("loss.chunk_size=0", "≥ 1"),
        ("callbacks.checkpoint.every_n_train_steps=0", "≥ 1 or null"),
        ("codes.ar.num_candidates=-1", "≥ 0"),
        ("codes.ar.weight=0", "> 0"),
        ("codes.ar.bad_rows=ignore", "skip, error"),
        ("tortoise.positions=odd", "served, trained"),
        ("tortoise.sampling.top_p=0", "> 0 and ≤ 1 or null"),
        ("tortoise.sampling.temperature=-1", "≥ 0"),
        ("perturbations.shares=[2]", "< 1"),
        ("perturbations.num_pairs=-1", "≥ 0"),
        ("rerank.num_candidates=1", "≥ 2"),
        ("hub.private=maybe", "true or false"),
        ("hub.repo_id=7", "a string or null"),
        ("trainer.max_steps=-2", "≥ -1"),
        ("trainer.fast_dev_run=-1", "true, false or an integer ≥ 0"),
        ("trainer.limit_train_batches=-1", "a number ≥ 0 or null"),
        ("trainer.gradient_clip_val=1.0", "set optim.gradient_clip_norm"),
        ("trainer.use_distributed_sampler=true", "set by this package"),
        ("trainer.barebones=true", "set by this package"),
        ("trainer.enable_checkpointing=false", "~callbacks.checkpoint"),
        ("trainer.logger=true", "logger=…"),
    ],
)
def test_a_bad_value(composed, setting, expected):
    found = errors(composed(), setting)
    assert found.startswith(setting.partition("=")[0]) and expected in found


@pytest.mark.parametrize(
    ("group", "setting"),
    [
        ("loss=sigmoid", "loss.bias=abc"),
        ("loss=sigmoid", "loss.chunk_size=0"),
        ("loss=listwise", "loss.temperature=0"),
        ("loss=listwise", "loss.contrastive.chunk_size=0"),
        ("codes/judge@codes.ar.judge=recordings", "codes.ar.judge.recordings=3"),
    ],
)
def test_each_alternative_of_a_group_has_its_schema(composed, group, setting):
    assert errors(composed(group), setting).startswith(setting.partition("=")[0])


def test_combinations_of_settings(composed):
    assert "at most 100 together" in errors(composed(), "split.test_percent=90 split.val_percent=20")
    assert "needs chunks" in errors(composed(), "training.cached_gradients=true training.chunk_tokens=0")


def test_all_findings_are_in_one_error(composed):
    found = errors(composed(), "seed=-1 optim.lr=-1 loss.chunk_size=0")
    assert all(name in found for name in ("seed must", "optim.lr must", "loss.chunk_size must"))


def test_a_misspelt_setting_of_an_experiment_file(composed):
    assert "optim.weight_decoy: no such setting. Did you mean optim.weight_decay?" in errors(
        composed(), "optim.weight_decoy=0.1"
    )


def test_a_missing_setting(composed):
    assert "model.checkpoint: not set. Add model.checkpoint=…" in errors(composed("model=pretrained"), "")


@pytest.mark.parametrize("key", ["note", "logger.own.notes", "data.name"])
@pytest.mark.parametrize("value", ["0123456789abcdef", "[0,a0123456789abcdefb]"])
def test_a_secret_is_refused_and_its_interpolation_is_not(composed, monkeypatch, key, value):
    monkeypatch.setenv("OWN_API_KEY", "0123456789abcdef")
    found = errors(composed(), f"{key}={value}")
    assert f"{key}: contains $OWN_API_KEY" in found and "0123456789abcdef" not in found
    assert "contains" not in errors(composed(), f"{key}=${{oc.env:OWN_API_KEY}}")
    stored = without_secrets(OmegaConf.create({"note": ["${oc.env:OWN_API_KEY}", 1], "seed": 3}))
    assert stored == {"note": ["$OWN_API_KEY", 1], "seed": 3}


def test_a_secret_in_a_value_of_a_wrong_type_is_not_printed(composed, monkeypatch):
    monkeypatch.setenv("OWN_API_KEY", "0123456789abcdef")
    assert "(got a secret)" in errors(composed(), 'hub.license={"a":["0123456789abcdef"]}')


def test_the_users_own_class_takes_any_settings(composed):
    own = "loss._target_=mypkg.Loss loss.chunk_size=abc loss.alpha=1 trainer._target_=mypkg.Trainer trainer.note=x"
    assert errors(composed(), own) == ""


def test_the_demo_ranks_at_least_two_candidates():
    cfg = OmegaConf.create({"num_candidates": 1, "port": 99999})
    found = errors(cfg, "", Demo)
    assert "num_candidates must be an integer ≥ 2" in found and "port must be an integer ≥ 1 and ≤ 65535" in found


def test_the_trainer_schema_has_all_flags_of_lightning():
    flags = set(inspect.signature(L.Trainer).parameters)
    assert set(OmegaConf.structured(Trainer)) - {"_target_"} == flags


@pytest.mark.parametrize("target", BY_TARGET)
def test_a_schema_names_the_parameters_of_its_target(target):
    names = set(OmegaConf.structured(BY_TARGET[target])) - {"_target_"}
    assert names <= set(inspect.signature(get_object(target)).parameters)
