"""Classes of the user's own package, outside of the repository, by `_target_` on the command line."""

import shutil

import pytest

from clvp_train.pairs import read_pairs
from tests.e2e.commands import ROOT, TRAIN, run
from tests.e2e.conftest import BUDGET, CORPUS

SHORT = [*CORPUS, *BUDGET, "trainer.max_steps=1", "test=false", "hydra.run.dir=run"]
PACKAGE = """
import lightning as L

from clvp_train.losses import SymmetricContrastiveLoss


class Loss(SymmetricContrastiveLoss):
    def __init__(self, weight=1.0):
        super().__init__()
        if weight < 0:
            raise ValueError("the weight is negative")


class Trainer(L.Trainer):
    def __init__(self, note="", **settings):
        super().__init__(**settings)
        self.note = note


class Callback(L.Callback):
    def __init__(self, file):
        self.file = file

    def on_train_end(self, trainer, module):
        used = [trainer, module.model, module.loss, trainer.optimizers[0], trainer.lr_scheduler_configs[0].scheduler]
        with open(self.file, "w") as file:
            file.write(" ".join(type(part).__name__ for part in used) + f" {trainer.note}")
"""


@pytest.fixture
def lib(workplace):
    """A folder with the package `mypkg`."""
    (workplace / "lib/mypkg").mkdir(parents=True)
    (workplace / "lib/mypkg/__init__.py").write_text(PACKAGE)
    (workplace / "lib/mypkg/broken.py").write_text("import no_such_library\n")
    return workplace / "lib"


@pytest.fixture
def own(lib, workplace):
    """Runs a command with overrides and `mypkg` on PYTHONPATH."""
    return lambda *overrides: run(TRAIN, [*SHORT, *overrides], workplace, PYTHONPATH=f"{lib}:{ROOT}")


def test_the_examples_train_together_outside_of_the_repository(lib, workplace):
    shutil.copytree(ROOT / "examples", lib, dirs_exist_ok=True)
    captions = enumerate((workplace / "sentences.txt").read_text().splitlines(), 1)
    (workplace / "film.srt").write_text(
        "".join(f"{n}\n00:00:01,000 --> 00:00:02,500\n{text}\n\n" for n, text in captions)
    )
    parts = ["corpus=subtitles", "corpus.path=film.srt", "codes=letters", "loss=margin", "optim=lion", "model=noisy"]
    parts += ["callbacks=[default,good_enough]", "callbacks.good_enough.value=0", "trainer._target_=mypkg.Trainer"]
    parts += ["optim.scheduler={_target_:own_schedule.inverse_sqrt,_partial_:true}", "+trainer.note=hello"]
    parts += ["+callbacks.mine={_target_:mypkg.Callback,file:parts.txt}", *CORPUS[2:4], *BUDGET, "trainer.max_steps=9"]
    parts += ["test=false", "hydra.run.dir=run", "--config-dir=lib/conf"]
    done = run(TRAIN, parts, workplace, PYTHONPATH=f"{lib}:{ROOT}")
    assert done.status == 0, done.stderr
    assert (workplace / "parts.txt").read_text() == "Trainer NoisyCLVP MarginLoss Lion LambdaLR hello"
    assert "val/R@1 has reached 0" in done.stdout and (workplace / "run/model/model.safetensors").exists()
    (folder,) = (workplace / "outputs/codes").glob("film-srt-letters-*")
    assert read_pairs(folder).num_rows == len((workplace / "sentences.txt").read_text().splitlines())


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
