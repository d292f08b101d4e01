import json
import statistics

import numpy as np
import pyarrow as pa
import pytest

from clvp_train.pairs.records import Records
from clvp_train.pairs.shards import SCHEMA, Shard
from clvp_train.pairs.storage import Storage
from clvp_train.pairs.tally import Tally, report_lines


def rows_of(count, seed):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 30, count).tolist()
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
def test_tallies_add_up_to_the_naive_count_over_all_rows(tmp_path, counts):
    shards = [rows_of(count, seed) for seed, count in enumerate(counts)]
    skipped = [{"id": "x", "kind": "no tokens", "reason": "r"}]
    records = Records(Storage(tmp_path))
    for index, rows in enumerate(shards):
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        records.write(index, Shard(f"s{index}", len(rows), 1, "0"), Tally.of(table, skipped), skipped)
    total = Tally()
    for _, tally in Records(Storage(tmp_path)).refresh().values():  # through their files
        total.add(tally)
    rows = [row for shard in shards for row in shard]
    lengths = [len(row["speech_ids"]) for row in rows]
    report = total.report(None)
    assert json.loads(json.dumps(report)) == report
    splits = {row["id"]: row["split"] for row in rows}
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


def test_the_report_is_aligned_and_plain():
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
        "codes a pair       3 to 160, median 60.5, mean 61.3",
        "ran into the limit 21 (50.0%)",
        "skipped            bad audio: 2, no tokens: 1",
        "speed              2153 codes/s, 100 × real time",
    ]
    assert len(report_lines(report | {"codes_per_second": None})) == 6, "nothing was made in this run"
