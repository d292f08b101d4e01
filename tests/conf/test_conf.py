"""Every file of conf/ composes on top of the defaults and instantiates."""

import inspect
import os
import signal
from pathlib import Path

import hydra
import lightning as L
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from clvp_train import Reranker
from clvp_train.corpus import Corpus, split_of
from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.errors import Stopped, deferring, stopping
from clvp_train.models import CLVPConfig, CLVPModel
from clvp_train.pairs import Manifest, generate, write_manifest
from clvp_train.pipelines import build
from clvp_train.pipelines.command import CONF
from clvp_train.pipelines.data import tortoise_of

ROOTS = sorted(file.stem for file in CONF.glob("*.yaml"))
PICKS = sorted(file.relative_to(CONF).with_suffix("").as_posix() for file in CONF.glob("*/*.yaml"))


def pairs(folder: Path) -> CLVPDataModule:
    write_manifest(folder, Manifest("f", "corpus", "ar", 0, 256, 2048, "nowhere"))
    return CLVPDataModule(folder)


def compose(root: str, *overrides: str, folder: Path = Path("out")) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose(root, [f"paths.output={folder}", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    cfg = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    OmegaConf.set_struct(cfg, False)
    return cfg


def groups_of(root: str) -> set[str]:
    defaults = OmegaConf.load(CONF / f"{root}.yaml").defaults
    return {next(iter(entry)) for entry in defaults if isinstance(entry, DictConfig)}


def fill(cfg: DictConfig, value: str) -> None:
    """Sets every ???."""
    for key in OmegaConf.missing_keys(cfg):
        OmegaConf.update(cfg, key, value)


def check_targets(node: object) -> int:
    """All `_target_`s below a node can be imported and accept the arguments in the config. Returns their number."""
    if not isinstance(node, dict):
        return sum(map(check_targets, node)) if isinstance(node, list) else 0
    count = sum(check_targets(child) for child in node.values())
    if "_target_" in node:
        given = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
        inspect.signature(get_object(node["_target_"])).bind_partial(**given)
        count += 1
    return count


def make_corpus(cfg, name, tmp_path):
    assert isinstance(instantiate(cfg.corpus), Corpus)


def make_tortoise(cfg, name, tmp_path):
    if name == "nano":  # the others are fetched from the Hub
        assert instantiate(cfg.tortoise).num_speech_tokens == 2048


def make_data(cfg, name, tmp_path):
    pairs(tmp_path)
    assert isinstance(instantiate(cfg.data, pairs=tmp_path), L.LightningDataModule)


def save_model(folder):
    tower = {"hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    towers = {"text_config": {**tower, "vocab_size": 256}, "speech_config": {**tower, "vocab_size": 2048}}
    CLVPModel(CLVPConfig(**towers, projection_dim=8)).save_pretrained(folder)


def make_reranker(cfg, name, tmp_path):
    save_model(tmp_path)
    assert isinstance(instantiate(cfg.reranker, checkpoint=tmp_path), Reranker)


def make_model(cfg, name, tmp_path):
    if name == "pretrained":
        save_model(tmp_path)
        cfg.model.checkpoint = str(tmp_path)
        assert build.model(cfg, pairs(tmp_path), tortoise_of(cfg)).config.projection_dim == 8
        return
    cfg.warm_start = False
    with torch.device("meta"):  # one of them has 244 M parameters
        model = build.model(cfg, pairs(tmp_path), tortoise_of(cfg))
    assert (model.config.text_config.vocab_size, model.config.speech_config.vocab_size) == (256, 2048)
    if name == "nano":
        cfg.warm_start = True
        model, tortoise = build.model(cfg, pairs(tmp_path), tortoise_of(cfg)), instantiate(cfg.tortoise)
        codes = model.speech_model.token_embedding.weight, tortoise.dvae.codebook.embed.T
        assert torch.corrcoef(torch.stack([each[:, 0].detach() for each in codes]))[0, 1] > 0.9999
    if name == "clvp":
        assert model.config.text_config.num_hidden_layers == 20 and model.num_parameters() > 200_000_000


def make_trainer(cfg, name, tmp_path):
    if cfg.trainer.accelerator == "gpu":
        cfg.trainer.update({"accelerator": "cpu", "devices": 1})
    assert isinstance(build.trainer(cfg, default_root_dir=tmp_path, logger=False), L.Trainer)


def make_callbacks(cfg, name, tmp_path):
    made = [instantiate(callback) for callback in cfg.callbacks.values()]
    assert made and all(isinstance(callback, L.Callback) for callback in made)


def make_logger(cfg, name, tmp_path):
    if "wandb" in (cfg.get("logger") or {}):
        cfg.logger.wandb.offline = True
    loggers = build.named(cfg, "logger")
    assert len(loggers) == {"many": 3, "none": 0}.get(name, 1)
    assert all(Path(logger.save_dir) == tmp_path for logger in loggers)


def make_split(cfg, name, tmp_path):
    assert split_of("a text", **cfg.split) in ("train", "val", "test")


def make_nothing(cfg, name, tmp_path):
    """Plain values."""


MAKERS = {
    "corpus": make_corpus,
    "tortoise": make_tortoise,
    "data": make_data,
    "model": make_model,
    "reranker": make_reranker,
    "trainer": make_trainer,
    "callbacks": make_callbacks,
    "logger": make_logger,
    "debug": make_nothing,
    "split": make_split,
    "paths": make_nothing,
    "hydra": make_nothing,
    "experiment": make_nothing,
}


@pytest.mark.parametrize("pick", PICKS)
def test_every_file_composes_and_instantiates(pick, tmp_path):
    group, name = pick.split("/")
    roots = [root for root in ROOTS if group in groups_of(root)]
    assert roots, f"no command can pick {pick}"
    for root in roots:
        cfg = compose(root, f"{group}={name}", folder=tmp_path)
        assert HydraConfig.get().runtime.choices[group] == name
        check_targets(OmegaConf.to_container(cfg))
    if group not in ("experiment", "hydra", "debug"):
        fill(cfg, "given")
        OmegaConf.resolve(cfg[group])
        maker = MAKERS.get(group)
        maker(cfg, name, tmp_path) if maker else instantiate(cfg[group])


@pytest.mark.parametrize("root", ROOTS)
def test_every_command_composes_with_targets_that_fit(root):
    cfg = compose(root)
    assert check_targets(OmegaConf.to_container(cfg)) >= (root != "export")  # it has no groups
    for group in (groups_of(root) - {"hydra", "experiment", "debug"}) & set(cfg):
        OmegaConf.resolve(cfg[group])


def disagreements(node: object) -> list[str]:
    """The settings below a node whose value is not the default of the class or function that takes them."""
    if not isinstance(node, dict):
        return []
    found = [found for child in node.values() for found in disagreements(child)]
    target = node.get("_target_", "")
    # the nano model is not the default, and BestCheckpoint has Lightning's parameters
    others = ("clvp_train.models.CLVPConfig", "clvp_train.training.BestCheckpoint")
    if not target.startswith("clvp_train.") or target in others:
        return found
    for name, parameter in inspect.signature(get_object(target)).parameters.items():
        value, default = node.get(name, "???"), parameter.default
        is_plain = not isinstance(value, dict) and not str(value).startswith(("???", "${"))
        if (
            is_plain
            and default is not parameter.empty
            and value != (list(default) if isinstance(default, tuple) else default)
        ):
            found.append(f"{target} {name}: {value} in conf/, {default} in Python")
    return found


@pytest.mark.parametrize(
    "picks",
    [
        "optim=adamw codes=mixed",
        "optim=adamw corpus=hub codes=dvae loss=sigmoid callbacks=[default,ema] logger=many",
        "optim=adamw corpus=asterisk codes=mixed loss=listwise codes/judge@codes.ar.judge=recordings",
        "rerank",
    ],
)
def test_the_defaults_of_classes_are_those_of_the_configs(picks):
    cfg = compose(picks) if picks in ROOTS else compose("train", *picks.split())
    assert disagreements(OmegaConf.to_container(cfg)) == []
    parameters = inspect.signature(generate).parameters
    assert all(parameters[name].default == value for name, value in cfg.get("split", {}).items())


def test_the_best_checkpoint_is_chosen_by_the_primary_metric():
    best = compose("train").callbacks.best
    assert (best.monitor, best.mode) == ("val/R@1", "max")


class Signalled(L.LightningModule):
    def test_step(self, *_):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_ends_an_evaluation():
    trainer = build.evaluation_trainer(compose("evaluate", "checkpoint=any"))
    with pytest.raises(Stopped) as stopped, stopping(lambda: "Try again"):
        trainer.test(Signalled(), DataLoader([0]), verbose=False)
    assert stopped.value.code == 128 + signal.SIGTERM and stopped.value.message == "stopped by SIGTERM. Try again"


def test_a_signal_waits_for_what_must_not_be_interrupted():
    done = []
    with pytest.raises(Stopped, match="143"), stopping(lambda: "Try again"):
        with deferring():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("import")
        done.append("more")
    assert done == ["import"]
