import json
import statistics

import numpy as np
import pyarrow as pa
import pytest

from clvp_train import hub
from clvp_train.errors import UserError
from clvp_train.pairs import SCHEMA, report_lines
from clvp_train.pairs.summary import Tally
from tests.unit.pairs_folder import pair, write_folder


def rows_of(count, seed):
    lengths = np.random.default_rng(seed).integers(1, 30, count).tolist()
    return [
        {
            "id": f"{seed}/{number // 2}",  # two candidates each
            "split": ("train", "val", "test")[number // 2 % 3],
            "speech_ids": [0] * length,
            "finished": length < 25,
        }
        for number, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("counts", [(1,), (2,), (7, 40), (0, 9)])
def test_sum_of_tallies_equals_naive_counts(counts):
    shards = [rows_of(count, seed) for seed, count in enumerate(counts)]
    total = Tally()
    for rows in shards:
        tally = Tally.of(pa.Table.from_pylist(rows, schema=SCHEMA), [{"id": "x", "kind": "no tokens", "reason": "r"}])
        total += Tally.from_json(json.loads(json.dumps(vars(tally))))  # as through a record file
    rows = [row for shard in shards for row in shard]
    lengths = [len(row["speech_ids"]) for row in rows]
    splits = {row["id"]: row["split"] for row in rows}
    report = total.report(None)
    assert json.loads(json.dumps(report)) == report
    for split in ("train", "val", "test"):
        assert report["pairs"].get(split, 0) == sum(row["split"] == split for row in rows)
        assert report["utterances"].get(split, 0) == list(splits.values()).count(split)
    assert report["codes"] == {
        "min": min(lengths),
        "median": statistics.median(lengths),
        "mean": pytest.approx(statistics.mean(lengths)),
        "max": max(lengths),
    }
    assert report["hours"] == pytest.approx(sum(lengths) * 1024 / 22_050 / 3600)
    assert report["unfinished"] == sum(not row["finished"] for row in rows)
    assert report["skipped"] == {"no tokens": len(counts)}


def test_report_lines():
    report = {
        "utterances": {"test": 2, "train": 10},
        "pairs": {"train": 40, "test": 2},
        "hours": 1.234,
        "codes": {"min": 3, "median": 60.5, "mean": 61.27, "max": 160},
        "unfinished": 21,
        "skipped": {"no tokens": 1, "bad audio": 2},
        "codes_per_second": 2153.3,
    }
    assert report_lines(report) == [
        "utterances         12 (train 10, test 2)",
        "pairs              42 (train 40, test 2)",
        "speech             1.23 h",
        "codes per pair     3 to 160, median 60.5, mean 61.3",
        "reached max_codes  21 (50.0%)",
        "skipped            bad audio: 2, no tokens: 1",
        "speed              2153 codes/s, 100 × real time",
    ]
    assert len(report_lines(report | {"codes_per_second": None})) == 6


def test_a_report_of_another_kind_is_refused_before_anything_is_copied(tmp_path):
    pairs = write_folder(tmp_path / "pairs", [[pair(1)]], report={"pairs": 7})
    with pytest.raises(UserError, match="manifest.json: its report is damaged"):
        hub.write_pairs_folder(pairs, tmp_path / "hub", hub.HubConfig())
    assert not (tmp_path / "hub").exists()
