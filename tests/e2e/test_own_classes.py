"""Classes of the user's own package, outside of the repository, by `_target_` on the command line."""

import pytest

from tests.e2e.commands import ROOT, TRAIN, run
from tests.e2e.conftest import BUDGET, CORPUS

SHORT = [*CORPUS, *BUDGET, "trainer.max_steps=1", "test=false", "hydra.run.dir=run"]
PACKAGE = """
import lightning as L
import torch

from clvp_train.corpus import TextLines
from clvp_train.losses import SymmetricContrastiveLoss
from clvp_train.models import CLVPModel


class Corpus(TextLines):
    pass


class Model(CLVPModel):
    pass


class Loss(SymmetricContrastiveLoss):
    def __init__(self, weight=1.0):
        super().__init__()
        if weight < 0:
            raise ValueError("the weight is negative")


class Optimizer(torch.optim.SGD):
    pass


class Trainer(L.Trainer):
    def __init__(self, note="", **settings):
        super().__init__(**settings)
        self.note = note


class Callback(L.Callback):
    def __init__(self, file):
        self.file = file

    def on_train_end(self, trainer, module):
        used = [trainer, module.model, module.loss, trainer.optimizers[0]]
        with open(self.file, "w") as file:
            file.write(" ".join(type(part).__name__ for part in used) + f" {trainer.note}")
"""


@pytest.fixture
def own(workplace):
    """Overrides that run a command with the package `mypkg` on PYTHONPATH."""
    (workplace / "lib/mypkg").mkdir(parents=True)
    (workplace / "lib/mypkg/__init__.py").write_text(PACKAGE)
    (workplace / "lib/mypkg/broken.py").write_text("import no_such_library\n")
    return lambda *overrides: run(TRAIN, [*SHORT, *overrides], workplace, PYTHONPATH=f"{workplace / 'lib'}:{ROOT}")


def test_every_part_can_be_the_users_own(own, workplace):
    done = own(
        "corpus._target_=mypkg.Corpus",
        "model._target_=mypkg.Model",
        "loss._target_=mypkg.Loss",
        "~loss.chunk_size",
        "+loss.weight=2.0",
        "optim.optimizer._target_=mypkg.Optimizer",
        "~optim.optimizer.betas",
        "~optim.optimizer.eps",
        "+callbacks.mine={_target_:mypkg.Callback,file:parts.txt}",
        "trainer._target_=mypkg.Trainer",
        "+trainer.note=hello",
    )
    assert done.status == 0, done.stderr
    assert (workplace / "parts.txt").read_text() == "Trainer Model Loss Optimizer hello"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["~loss.chunk_size", "+loss.weight=-1"], "ValueError: the weight is negative"),
        ([], "TypeError: Loss.__init__() got an unexpected keyword argument 'chunk_size'"),
        (["loss._target_=mypkg.broken.Loss"], "No module named 'no_such_library'"),
    ],
    ids=["an error in the constructor", "an argument it does not take", "an import in its module"],
)
def test_an_error_out_of_the_users_class_keeps_its_traceback(own, overrides, words):
    done = own("loss._target_=mypkg.Loss", *overrides)
    assert done.status == 1 and "Traceback" in done.stderr and words in done.stderr
    assert "mypkg" in done.stderr
