import hashlib
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clvp_train.pairs.shards import SCHEMA, shard_name, write_shard
from clvp_train.pairs.storage import Storage


def row(number):
    return {
        "id": f"a/{number}",
        "text": f"Grüße, {number}",
        "split": ("train", "val", "test")[number % 3],
        "input_ids": list(range(number)),
        "speech_ids": [7] * (number + 1),
        "voice": "v",
        "candidate": number % 2,
        "finished": number % 2 == 0,
        "log_probability": -0.5 * number,
        "seed": 2**48 - number,
    }


def test_rows_make_a_round_trip_in_order(tmp_path):
    rows = [row(number) for number in range(6)]
    shard, table = write_shard(Storage(tmp_path), shard_name(0, 1), rows)
    read = pq.read_table(tmp_path / "pairs-00000-of-00001.parquet")
    assert read.to_pylist() == rows and read.schema.equals(SCHEMA) and read.equals(table)
    data = (tmp_path / shard.name).read_bytes()
    assert (shard.rows, shard.bytes, shard.sha256) == (6, len(data), hashlib.sha256(data).hexdigest())


def test_what_a_recording_has_not_is_null(tmp_path):
    bare = {key: value for key, value in row(3).items() if key not in ("log_probability", "seed")}
    _, table = write_shard(Storage(tmp_path), "pairs.parquet", [bare])
    assert table.to_pylist() == [bare | {"log_probability": None, "seed": None}]


def test_a_shard_may_be_empty(tmp_path):
    shard, _ = write_shard(Storage(tmp_path), "pairs.parquet", [])
    assert shard.rows == 0 and pq.read_table(tmp_path / "pairs.parquet").schema.equals(SCHEMA)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    rows = [row(number) for number in range(50)]
    for name in ("one", "two"):
        write_shard(Storage(tmp_path), name, rows)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_rows_that_do_not_fit_leave_no_shard(tmp_path):
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        write_shard(Storage(tmp_path), shard_name(0, 1), [row(0) | {"speech_ids": "text"}])
    assert not list(tmp_path.iterdir())


def test_shards_lie_wherever_fsspec_reaches():
    storage = Storage("memory://test_shards/pairs")
    write_shard(storage, "pairs.parquet", [row(1)])
    assert pq.read_table(io.BytesIO(storage.read("pairs.parquet"))).to_pylist() == [row(1)]
    storage.remove("")
