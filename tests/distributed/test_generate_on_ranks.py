"""Ranks that torchrun or SLURM started share the shards out and come to the pairs of one process."""

import importlib
import os
from pathlib import Path

import pytest

from clvp_train.codes import ARCodes, generate, read_manifest, read_pairs
from clvp_train.corpus import TextLines
from clvp_train.tortoise import FrozenTortoise
from tests.distributed.ranks import on_ranks

DATA = Path(__file__).parents[2] / "data" / "nano"


def make(folder):
    importlib.import_module("clvp_train.codes.generate").SHARD_SIZE = 4
    tortoise = FrozenTortoise.from_pretrained(DATA / "tortoise", sampling={"max_codes": 4})
    corpus, codes = TextLines(str(folder / "corpus.txt")), ARCodes(str(DATA / "voices"), num_candidates=1)
    return generate(corpus, tortoise, codes, folder / "codes")


def share(rank, names, folder):
    os.environ |= dict(zip(names, (str(rank), "2")))
    return str(make(folder))


def alone(rank, folder):
    return str(make(folder))


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")])
def test_two_ranks_make_the_pairs_of_one(tmp_path, names):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "corpus.txt").write_text("\n".join(f"text {n}" for n in range(17)))
    (one,) = on_ranks(1, alone, tmp_path / "one")
    first, second = on_ranks(2, share, names, tmp_path / "two")
    assert first == second and Path(first).name == Path(one).name
    assert read_manifest(Path(one)).num_shards == 5
    assert read_pairs(Path(first)).equals(read_pairs(Path(one)))
