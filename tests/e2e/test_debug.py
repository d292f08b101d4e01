"""The config group debug, and the flags of Lightning's Trainer that help to find errors."""

import csv

import pytest

from tests.e2e.commands import TRAIN, run
from tests.e2e.conftest import CORPUS, FEW_CANDIDATES

TINY = [*CORPUS, *FEW_CANDIDATES, "data.batch_size=32", "trainer.precision=32-true", "hydra.run.dir=run"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["debug=default"], "report"),
        (["debug=limit", "trainer.max_epochs=1", "test=false"], "model"),
        (["debug=profiler"], "FIT Profiler Report"),
        (["trainer.fast_dev_run=true"], "report"),
        (
            ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.num_sanity_val_steps=1", "test=false"],
            "model",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_run_to_find_errors(workplace, overrides, words):
    done = run(TRAIN, [*TINY, *overrides], workplace)
    assert done.status == 0, done.stderr
    assert words in done.stdout + done.stderr and (workplace / "run/model/model.safetensors").exists()


def test_overfitting_repeats_one_batch_until_it_is_learned(workplace):
    done = run(TRAIN, [*TINY, "debug=overfit", "trainer.max_epochs=40", "logger=csv"], workplace)
    assert done.status == 0, done.stderr
    with (workplace / "run/logs/metrics.csv").open() as file:
        accuracies = [float(row["train/accuracy"]) for row in csv.DictReader(file) if row["train/accuracy"]]
    assert accuracies[-1] > 0.9
