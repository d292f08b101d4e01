import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clvp_train.errors import UserError
from clvp_train.pairs import SCHEMA, Manifest, Shard, Storage, read_manifest, write_manifest
from clvp_train.pairs.schema import MANIFEST, differences, shard_name, write_shard
from tests.unit.pairs_folder import pair

NULLABLE = ("log_probability", "seed", "quality")
MANIFEST_OF_ONE = Manifest(
    "f" * 64,
    "corpus",
    "ar",
    1,
    256,
    512,
    "data/tortoise",
    settings={"codes.seed": 0},
    complete=True,
    shards=(Shard("pairs-00000-of-00001.parquet", 3, 99, "0" * 64),),
)


@pytest.mark.parametrize("folder", ["local", "memory://test_schema/pairs"])
def test_shards_and_manifest_round_trip(tmp_path, folder):
    storage = Storage(tmp_path if folder == "local" else folder)
    rows = [pair(number) for number in range(6)]
    shard, table = write_shard(storage, shard_name(0, 1), rows)
    data = storage.read("pairs-00000-of-00001.parquet")
    read = pq.read_table(pa.BufferReader(data))
    assert read.to_pylist() == rows and read.schema.equals(SCHEMA) and read.equals(table)
    assert (shard.rows, shard.bytes, shard.sha256) == (6, len(data), hashlib.sha256(data).hexdigest())
    assert write_shard(storage, "again.parquet", rows)[0].sha256 == shard.sha256
    write_manifest(storage.folder, MANIFEST_OF_ONE)
    assert read_manifest(storage.folder) == MANIFEST_OF_ONE
    values = json.loads(storage.read(MANIFEST))
    assert values["num_shards"] == 1 and values["shards"][0]["rows"] == 3
    storage.remove("")


def test_shards_may_be_empty_and_missing_values_are_null(tmp_path):
    recording = {key: value for key, value in pair(3).items() if key not in NULLABLE}
    _, table = write_shard(Storage(tmp_path), "pairs.parquet", [recording])
    assert table.to_pylist() == [recording | dict.fromkeys(NULLABLE)]
    assert write_shard(Storage(tmp_path), "pairs.parquet", [])[0].rows == 0
    assert pq.read_table(tmp_path / "pairs.parquet").schema.equals(SCHEMA)


def test_invalid_rows_leave_no_file(tmp_path):
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        write_shard(Storage(tmp_path), shard_name(0, 1), [pair(0) | {"speech_ids": "text"}])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"corpus": 1}', '{"shards": [1]}', "\xff"])
def test_missing_or_damaged_manifest(tmp_path, text):
    if text is not None:
        (tmp_path / MANIFEST).write_text(text, encoding="latin-1")
    message = "contains no manifest.json.*clvp_train.generate" if text is None else f"{MANIFEST}: damaged"
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path)


def test_differences_name_settings():
    old = {"corpus": "c", "tortoise": "t", "tortoise.dtype": "float32", "codes.seed": 0, "algorithm": 2}
    assert differences(old, old) == []
    assert differences(old, old | {"codes.seed": 1}) == ["codes.seed (0 in the folder, 1 now)"]
    assert differences(old, old | {"corpus": "d", "tortoise": "u"}) == ["the corpus", "Tortoise's weights"]
    bfloat16 = old | {"tortoise": "u", "tortoise.dtype": "bfloat16"}
    assert differences(old, bfloat16) == ["tortoise.dtype (float32 in the folder, bfloat16 now)"]
    assert differences({}, {"codes.seed": 1}) == ["codes.seed (None in the folder, 1 now)"]
