"""Parts that do not fit are refused in one line, which names what is missing."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf

from clvp_train.corpus import Corpus, LocalCorpus
from clvp_train.errors import UserError
from clvp_train.pipelines import build, interfaces
from clvp_train.training import OptimConfig


class Unfinished(Corpus):
    """Lacks what its base class declares as abstract."""


class Forgetful(LocalCorpus):
    """Has every method, and lacks the attributes that `LocalCorpus` reads."""

    def _rows(self):
        return iter(())


class Nothing:
    def __init__(self, *arguments):
        """Takes what an optimiser and a schedule are called with."""


@pytest.mark.parametrize(
    ("kind", "interface", "missing"),
    [
        ("Unfinished", interfaces.Corpus, "_rows, source"),
        ("Forgetful", interfaces.Corpus, "name, source"),
        ("Nothing", interfaces.CodeSource, "check, inspect, settings, prepare, num_rows, encode"),
        ("Nothing", interfaces.Loss, "__call__"),
        ("Nothing", interfaces.Model, "get_text_features, get_speech_features, save_pretrained"),
        ("Nothing", interfaces.Callback, "setup, on_train_batch_end, state_dict, load_state_dict"),
        ("Nothing", interfaces.Logger, "log_metrics, log_hyperparams, save, finalize"),
    ],
)
def test_a_missing_method_is_named(kind, interface, missing):
    node = OmegaConf.create({"_target_": f"{__name__}.{kind}"})
    assert get_object(node._target_).__name__ == kind
    with pytest.raises(UserError, match=rf"^part={__name__}\.{kind}: has no {missing}\. Define it as in"):
        interfaces.build_part("part", node, interface)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"optimizer": Nothing}, "optim.optimizer=.*Nothing: has no param_groups, step, zero_grad"),
        ({"optimizer": partial(torch.optim.SGD, lr=1), "scheduler": Nothing}, "optim.scheduler=.*Nothing: has no step"),
    ],
    ids=["optimiser", "schedule"],
)
def test_an_optimiser_that_does_not_fit_is_refused_before_training(parts, message):
    module = torch.nn.Linear(2, 2)
    module.optim, module.total_steps = OptimConfig(**parts), 10
    with pytest.raises(UserError, match=message):
        build.check_optim(module)


def test_a_part_needs_no_base_class():
    stream = SimpleNamespace(name="own", source="nowhere", stream=lambda *_: iter(()))
    interfaces.check_part("corpus", stream, interfaces.Corpus)
    interfaces.check_part("loss", lambda *embeds: None, interfaces.Loss)
