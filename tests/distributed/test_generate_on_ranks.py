"""Ranks started by torchrun or SLURM divide the shards and make the same pairs as one process."""

import os
import time
from pathlib import Path

import pytest

from clvp_train.corpus import TextLines
from clvp_train.errors import UserError
from clvp_train.io.slurm import announcing_failure
from clvp_train.pairs import ARCodes, generate, read_manifest
from clvp_train.pairs.schema import shard_index
from clvp_train.tortoise import FrozenTortoise
from tests.distributed.ranks import on_ranks

DATA = Path(__file__).parents[2] / "data" / "nano"


def make(folder):
    tortoise = FrozenTortoise.from_pretrained(DATA / "tortoise", sampling={"max_codes": 4})
    codes = ARCodes(str(DATA / "voices"), num_candidates=1, shard_size=4)
    return generate(TextLines(str(folder / "corpus.txt")), tortoise, codes, cache_dir=folder / "codes")


def share(rank, names, folder):
    os.environ |= dict(zip(names, (str(rank), "2")))
    return make(folder)


def alone(rank, folder):
    return make(folder)


@pytest.fixture
def corpora(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "corpus.txt").write_text("\n".join(f"text {n}" for n in range(17)))
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.parquet")}


TORCHRUN, SRUN = ("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")


@pytest.mark.parametrize("names", [TORCHRUN, SRUN])
def test_two_ranks_make_the_pairs_of_one_process(corpora, names):
    (one,) = on_ranks(1, alone, corpora / "one")
    first, second = on_ranks(2, share, names, corpora / "two")
    assert first == second and Path(first).name == Path(one).name
    assert read_manifest(one).num_shards == 5 and read_manifest(first).shards == read_manifest(one).shards
    assert contents(first) == contents(one)
    assert on_ranks(2, share, names, corpora / "two") == [first, second], "both reuse the folder"


@pytest.mark.parametrize("lost", [2, 3])
def test_two_ranks_repair_a_lost_shard(corpora, lost):
    """A shard of the first rank and one of the second."""
    (folder,) = on_ranks(1, alone, corpora / "one")
    complete = contents(folder)
    times = {path.name: path.stat().st_mtime_ns for path in Path(folder).glob("*.parquet")}
    sorted(Path(folder).glob("train-*"))[lost].unlink()
    assert on_ranks(2, share, TORCHRUN, corpora / "one") == [folder, folder]
    assert contents(folder) == complete and read_manifest(folder).complete
    kept = [path.name for path in Path(folder).glob("*.parquet") if path.stat().st_mtime_ns == times[path.name]]
    assert {shard_index(name) for name in kept} == set(range(5)) - {lost}


def share_of_srun(rank, folder):
    os.environ |= {"SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": str(rank)}
    os.environ |= {"SLURM_JOB_ID": folder.parent.name, "SLURM_STEP_ID": "0"}
    (folder / f"started-{rank}").touch()
    try:
        with announcing_failure(folder / "codes"):
            if rank == 0:
                while not (folder / "started-1").exists():
                    time.sleep(0.01)
                raise RuntimeError("CUDA out of memory")
            return make(folder)
    except (RuntimeError, UserError) as error:
        return str(error)


def test_ranks_of_srun_do_not_wait_for_one_that_has_failed(corpora):
    _, second = on_ranks(2, share_of_srun, corpora / "one")
    assert second == "rank 0 has failed: CUDA out of memory. Fix the cause, and run the same command again."
