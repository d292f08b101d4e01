"""Settings that make no sense are named."""

import pytest

from clvp_train.errors import UserError
from clvp_train.pairs import ARCodes, DVAECodes, generate
from clvp_train.pairs.ranks import rank_and_world_size
from tests.unit.pairs.conftest import VOICES


@pytest.mark.parametrize(
    "name", ["num_candidates", "num_eval_candidates", "batch_size", "clips_per_voice", "shard_size"]
)
@pytest.mark.parametrize("value", [0, -1, "abc", 1.5])
def test_a_count_that_makes_no_sense_is_named(name, value):
    with pytest.raises(UserError, match=f"codes.{name}={value}: set it to a whole number, 1 or more"):
        ARCodes(VOICES, **{name: value})


@pytest.mark.parametrize("name", ["batch_size", "shard_size"])
def test_a_count_that_makes_no_sense_is_named_for_recordings_too(name):
    with pytest.raises(UserError, match=f"codes.{name}=0: set it"):
        DVAECodes(**{name: 0})


@pytest.mark.parametrize(("test", "val"), [(-1, 5), (60, 41), ("abc", 5), (5, None)])
def test_shares_that_make_no_sense_are_named(tortoise, write_corpus, tmp_path, test, val):
    with pytest.raises(UserError, match="_percent="):
        generate(
            write_corpus(), tortoise, ARCodes(VOICES), cache_dir=tmp_path / "codes", test_percent=test, val_percent=val
        )


@pytest.mark.parametrize(
    ("set_", "found"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}, (3, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (0, 1)),  # a batch script without srun: this process is alone
        (
            {"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
            (0, 2),
        ),  # torchrun under srun
        ({"WORLD_SIZE": "2"}, (0, 1)),
    ],
)
def test_ranks_are_those_that_torchrun_or_srun_started(monkeypatch, set_, found):
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_.items():
        monkeypatch.setenv(name, value)
    assert rank_and_world_size() == found


@pytest.mark.parametrize(("rank", "size"), [("abc", "2"), ("2", "2"), ("-1", "2"), ("0", "")])
def test_ranks_that_make_no_sense_are_named(monkeypatch, rank, size):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(UserError, match=f"RANK={rank} and WORLD_SIZE={size} are no rank"):
        rank_and_world_size()
