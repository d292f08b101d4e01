"""Pairs of which only some copies are on the disk at a time."""

import pytest
from huggingface_hub import constants

from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.errors import UserError
from clvp_train.pairs import CopyCache, Storage
from tests.unit.data.test_mixture import drawn
from tests.unit.pairs_folder import VOCABULARY, pair, write_folder

SHARDS, ROWS = 12, 40  # a third of the rows are training pairs
URL = "memory://cached"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Makes DataModules over one or two remote folders; two copies of 99 kB fit into half of the limit."""
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    rows = [pair(n) | {"input_ids": [1] * 200, "speech_ids": [n % VOCABULARY] * 400} for n in range(SHARDS * ROWS)]
    shards = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
    for name, own in (("all", shards), ("a", shards[:7]), ("b", shards[5:])):
        write_folder(f"{URL}/{name}", own)

    def make(*names, **settings):
        folders = {name: f"{URL}/{name}" for name in names or ("all",)}
        return CLVPDataModule(folders, **{"batch_size": 8, "cache_gb": 4.5e-4, "num_hard_negatives": 1} | settings)

    yield make
    Storage(URL).remove("")


def by_key(batches):
    columns = ("key", "input_ids", "speech_ids")
    return {key: pair for batch in batches for key, *pair in zip(*(batch[name] for name in columns))}


@pytest.mark.parametrize("names", [("all",), ("a", "b")])
def test_the_same_pairs_are_drawn_while_few_copies_exist(cached, tmp_path, monkeypatch, names):
    fetched, fetch = [], CopyCache._fetch
    monkeypatch.setattr(CopyCache, "_fetch", lambda cache, part: fetched.append(fetch(cache, part)))
    module, complete = cached(*names), cached(*names, cache_gb=None)
    assert len(module.splits["train"].files) == len(fetched[: SHARDS if names == ("all",) else 7])
    for epoch in range(2):
        fetched.clear()
        batches = drawn(module, epoch)
        assert by_key(batches) == by_key(drawn(complete, epoch)) and len(by_key(batches)) == 160
        assert 2 <= len(list((tmp_path / "home/clvp_train/cache").glob("*.arrow"))) <= 4
        assert 5 < len(fetched) <= SHARDS + 2 * (len(names) - 1), "each shard once an epoch"
    for split in ("val", "test"):
        codes = [[item["speech_ids"].tolist() for item in made.splits[split]] for made in (module, complete)]
        assert codes[0] == codes[1] and len(codes[0]) == len(module.splits[split].rows_N)


def test_windows_follow_each_other_and_are_mixed_inside(cached):
    module = cached()
    train = module.splits["train"]
    order = module.train_dataloader().batch_sampler.sampler
    shards = (train.rows_N[order.indices(order.texts())] // ROWS).tolist()
    window = {shard: number // 2 for number, shard in enumerate(dict.fromkeys(shards))}
    drawn = [window[shard] for shard in shards]
    assert drawn == sorted(drawn) and max(drawn) == 5 and len(set(shards[:13])) == 2


def test_workers_and_resumed_runs_have_the_same_batches(cached):
    batches, workers, resumed = drawn(cached(), 1), cached(num_workers=1), cached()
    assert drawn(workers, 1) == batches != drawn(cached(), 0)
    resumed.resume_at(1, 7)
    assert drawn(resumed, 1) == batches[7:]


def test_a_limit_below_two_copies_is_refused(cached):
    with pytest.raises(UserError, match="data.cache_gb=0.0001: less than two copies of memory.*Set at least 0.000198"):
        cached(cache_gb=1e-4).check(1)
