"""`train.py` with the settings of the loss, the step and the callbacks, through the command."""

import csv
import math
import shutil

import pytest
import torch

from clvp_train.models import load_clvp
from tests.e2e.commands import EVALUATE, TRAIN, run
from tests.e2e.conftest import BUDGET, CORPUS, FEW_CANDIDATES
from tests.e2e.test_train_and_evaluate import report


def train(workplace, *overrides):
    done = run(TRAIN, [*CORPUS, *BUDGET, "hydra.run.dir=run", *overrides], workplace)
    assert done.status == 0, done.stderr
    return workplace / "run"


def column(output, name):
    with (output / "logs/metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.cached_gradients=true", "training.chunk_tokens=100"],
        ["training.chunk_tokens=0"],
        ["training.gradient_checkpointing=true"],
        ["loss.chunk_size=7"],
    ],
    ids=" ".join,
)
def test_settings_that_save_memory_or_time_do_not_change_the_result(trained, workplace, overrides):
    output = train(workplace, "test=false", *overrides)
    assert column(output, "train/loss") == pytest.approx(column(trained.output, "train/loss"), abs=1e-4)
    one, other = (load_clvp(folder / "checkpoints/last.ckpt").state_dict() for folder in (output, trained.output))
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], atol=2e-5, rtol=0, msg=name)


ALL = {"text", "speech", "logit"}


def parts_that_differ(one, other):
    """Of two checkpoints."""
    ours, theirs = (load_clvp(output / "checkpoints/last.ckpt").state_dict() for output in (one, other))
    return {name.split("_")[0] for name, weight in ours.items() if not torch.equal(weight, theirs[name])}


@pytest.fixture(scope="module")
def untrained(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("untrained")
    shutil.copy(trained.cwd / "sentences.txt", folder)
    shutil.copytree(trained.cwd / "outputs/codes", folder / "outputs/codes")
    return train(folder, "optim.lr=0", "trainer.max_steps=1", "test=false")


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (["loss=sigmoid"], ALL),
        (["data.num_hard_negatives=2", "data.hard_negatives=[swap,drop]"], ALL),
        (["training.text_mask_percentage=0.2", "training.voice_mask_percentage=0.2"], ALL),
        (["callbacks=[default,ema]", "callbacks.ema.decay=0.5"], ALL),
        (["optim.text_lr=1e-4"], ALL),
        (["optim.freeze=[speech]"], ALL - {"speech"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_that_change_training_change_the_weights(trained, untrained, workplace, overrides, changed):
    output = train(workplace, "test=false", *overrides)
    assert parts_that_differ(output, untrained) == changed
    assert parts_that_differ(output, trained.output) & {"text", "speech"}
    assert all(math.isfinite(loss) for loss in column(output, "train/loss"))


def test_a_model_with_tortoise_padding_is_evaluated_with_it(workplace):
    output = train(workplace, "model.config.padding=tortoise", "data.max_codes=24")
    assert (
        all(share > 0 for share in column(output, "train/padding"))
        and load_clvp(output / "model").config.padding == "tortoise"
    )
    done = run(
        EVALUATE,
        [f"checkpoint={output / 'model'}", *CORPUS, *FEW_CANDIDATES, "data.max_codes=24", "hydra.run.dir=again"],
        workplace,
    )
    assert done.status == 0, done.stderr
    assert report(workplace / "again")["text_to_speech"] == report(output)["text_to_speech"]


def test_early_stopping_ends_a_run_that_no_longer_improves(workplace):
    patience = ["callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=2", "optim.lr=0"]
    output = train(workplace, "trainer.max_steps=-1", "trainer.max_epochs=50", "test=false", *patience)
    assert len(column(output, "val/R@1")) == 3 and (output / "model").is_dir()


def test_throughput_is_logged(trained):
    assert all(0 < share < 0.5 for share in column(trained.output, "train/padding"))
    pairs, tokens = (column(trained.output, f"train/{name}_per_second") for name in ("pairs", "tokens"))
    assert all(10 < token / pair < 100 for pair, token in zip(pairs, tokens))
