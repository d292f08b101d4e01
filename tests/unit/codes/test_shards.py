import json
import multiprocessing
import resource
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clvp_train.codes import Manifest, read_manifest, read_pairs
from clvp_train.codes.shards import MANIFEST, SCHEMA, shard_path, write_manifest, write_shard
from clvp_train.errors import UserError

HELD = Manifest("f" * 64, "corpus", "ar", 2, 256, 512, "data/tortoise")


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
        "seed": 2**48 - number,
    }


@pytest.fixture
def folder(tmp_path):
    for index in range(2):
        write_shard(shard_path(tmp_path, index, 2), [row(3 * index + n) for n in range(3)])
    write_manifest(tmp_path, HELD)
    return tmp_path


def test_rows_and_manifest_make_a_round_trip_in_order(folder):
    assert read_pairs(folder).to_pylist() == [row(number) for number in range(6)]
    assert read_pairs(folder).schema.equals(SCHEMA) and read_manifest(folder) == HELD


def test_nothing_but_shards_and_manifest_stays(folder):
    assert {path.name for path in folder.iterdir()} == {
        MANIFEST,
        "pairs-00000-of-00002.parquet",
        "pairs-00001-of-00002.parquet",
    }


def test_rows_that_do_not_fit_leave_no_shard(tmp_path):
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        write_shard(shard_path(tmp_path, 0, 1), [row(0) | {"speech_ids": "text"}])
    assert not list(tmp_path.glob("*.parquet"))


def write_until_killed(path):
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # the kernel ends the process once a file grows beyond that
    write_shard(path, [row(number) for number in range(100)])


def test_a_process_killed_while_it_writes_leaves_the_old_shard_whole(tmp_path):
    path = shard_path(tmp_path, 0, 1)
    write_shard(path, [row(1)])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clvp_train.app"])
    process = context.Process(target=write_until_killed, args=(path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGXFSZ
    assert pq.read_table(path).to_pylist() == [row(1)]


def test_a_folder_without_manifest_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no manifest.json: .*clvp_train.generate"):
        read_pairs(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"corpus": 1}'])
def test_a_damaged_manifest_is_named(folder, text):
    (folder / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=f"{folder / MANIFEST} is damaged .*: delete it and run"):
        read_pairs(folder)


def test_a_manifest_is_plain_json(folder):
    assert json.loads((folder / MANIFEST).read_text())["num_shards"] == 2


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "text", "columns"])
def test_a_missing_or_damaged_shard_is_named_with_the_mend(folder, damage):
    path = shard_path(folder, 1, 2)
    if damage == "missing":
        path.unlink()
    elif damage == "columns":
        pq.write_table(pa.table({"other": [1]}), path)
    else:
        path.write_bytes({"cut": path.read_bytes()[:-50], "empty": b"", "text": b"no parquet" * 10}[damage])
    with pytest.raises(UserError, match=f"{path} is missing or damaged .*: delete it and run the same command again"):
        read_pairs(folder)
