import logging
import multiprocessing
import os
import resource
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from clvp_train.errors import UserError
from clvp_train.pairs import arrow_copies, open_copies, read_pairs
from clvp_train.pairs.shards import SCHEMA
from tests.unit.pairs_folder import write_folder

SHARDS = 3


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
        "log_probability": -number / 2,
        "seed": 2**48 - number,
    }


ROWS = [{name: row(number)[name] for name in SCHEMA.names} for number in range(12)]


def write(folder, **changes):
    return write_folder(folder, [ROWS[4 * shard : 4 * shard + 4] for shard in range(SHARDS)], **changes)


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "pairs [1]*")  # no pattern, though it looks like one


def shard(folder, index):
    return folder / f"pairs-{index:05d}-of-{SHARDS:05d}.parquet"


def test_rows_come_back_in_the_order_of_the_shards(folder):
    pairs = read_pairs(folder)
    assert pairs.to_pylist() == ROWS and pairs.schema.equals(SCHEMA)
    assert read_pairs(str(folder)).equals(pairs) and read_pairs(f"file://{folder}").equals(pairs)


def test_only_the_columns_asked_for_come_back(folder):
    assert read_pairs(folder, ["speech_ids", "id"]).to_pylist() == [
        {"speech_ids": row["speech_ids"], "id": row["id"]} for row in ROWS
    ]


def test_pairs_are_mapped_and_not_read(tmp_path):
    files = arrow_copies(write_folder(tmp_path / "pairs", [ROWS * 1000] * 2))
    before = pa.total_allocated_bytes()
    pairs = open_copies(files)
    assert pa.total_allocated_bytes() - before < 10_000 < pairs.nbytes
    mapped = Path("/proc/self/maps").read_text()
    assert all(str(file) in mapped for file in files)


def test_no_file_stays_open(folder):
    before = len(os.listdir("/proc/self/fd"))
    pairs = read_pairs(folder)
    assert len(os.listdir("/proc/self/fd")) == before and pairs["id"][11].as_py() == "a/11"


def test_shards_are_copied_once(folder, caplog):
    caplog.set_level(logging.INFO)
    files = arrow_copies(folder)
    times = [file.stat().st_mtime_ns for file in files]
    assert f"copying 3 shards to {folder / '.arrow'}" in caplog.text
    caplog.clear()
    assert arrow_copies(folder) == files and [file.stat().st_mtime_ns for file in files] == times and not caplog.text
    files[1].unlink()
    assert read_pairs(folder).to_pylist() == ROWS and "copying 1 shards" in caplog.text
    assert sorted(path for path in (folder / ".arrow").iterdir()) == files


def test_other_shards_of_the_same_names_are_read_anew(folder):
    assert read_pairs(folder).to_pylist() == ROWS
    write_folder(folder, [ROWS[8:], ROWS[4:8], ROWS[:4]])
    assert read_pairs(folder).to_pylist() == ROWS[8:] + ROWS[4:8] + ROWS[:4]


def test_many_rows_in_a_shard_make_a_round_trip(tmp_path):
    rows = [ROWS[number % 12] | {"seed": number} for number in range(9000)]
    assert read_pairs(write_folder(tmp_path / "pairs", [rows, [], rows[:5]])).to_pylist() == rows + rows[:5]


def test_a_folder_of_no_shards_has_no_rows(tmp_path):
    pairs = read_pairs(write_folder(tmp_path / "pairs", []))
    assert pairs.num_rows == 0 and pairs.schema.equals(SCHEMA)


def forkserver():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clvp_train.pairs"])
    return context


def read_when_told(folder, start, answers):
    start.wait(60)
    answers.put(read_pairs(folder).to_pylist() == ROWS)


def test_processes_that_read_at_once_do_not_disturb_each_other(folder):
    context = forkserver()
    start, answers = context.Event(), context.Queue()
    processes = [context.Process(target=read_when_told, args=(folder, start, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    assert [answers.get(timeout=60) for _ in processes] == [True] * 4
    for process in processes:
        process.join(60)
    assert len(list((folder / ".arrow").iterdir())) == SHARDS


def test_a_url_is_read_as_a_folder_is(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    url = "memory://reading/pairs"
    write(url)
    try:
        assert read_pairs(url).to_pylist() == ROWS
        assert {file.parent for file in arrow_copies(url)} == {tmp_path / "home" / "clvp_train"}
        fsspec.filesystem("memory").rm(f"/reading/pairs/{shard(Path(), 1).name}")
        with pytest.raises(UserError, match="memory://reading/pairs/pairs-00001-of-00003.parquet is missing"):
            read_pairs(url)
    finally:
        fsspec.filesystem("memory").rm("/reading", recursive=True)


def test_an_unfinished_folder_says_how_far_it_is(folder):
    write(folder, complete=False)
    shard(folder, 2).unlink()
    with pytest.raises(UserError) as caught:
        read_pairs(folder)
    assert str(caught.value) == (
        f"{folder} is not finished, 2 of 3 shards are there: run the same generate command again"
    )


@pytest.mark.parametrize("read_before", [False, True])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "text", "columns", "body"])
def test_a_missing_or_damaged_shard_is_named_with_the_mend(folder, damage, read_before):
    if read_before:
        read_pairs(folder)
    path = shard(folder, 1)
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
        message = f"{path} is missing: run the same generate command again"
    else:
        message = f"{path} is damaged"
        if damage == "columns":
            pq.write_table(pa.table({"other": [1]}), path)
        else:
            path.write_bytes(
                {
                    "cut": whole[:-50],
                    "empty": b"",
                    "text": b"no parquet" * 10,
                    "body": whole[:4] + bytes(len(whole) - 12) + whole[-8:],
                }[damage]
            )
    if damage == "body" and read_before:  # its size is right, and the copy was made while it was whole
        assert read_pairs(folder).to_pylist() == ROWS
        return
    with pytest.raises(UserError) as caught:
        read_pairs(folder)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert str(caught.value).endswith("run the same generate command again")
    assert damage == "missing" or "delete it" in str(caught.value)


def test_a_shard_of_other_columns_is_named(tmp_path):
    folder = write_folder(tmp_path / "pairs", [ROWS], schema=SCHEMA.remove(SCHEMA.get_field_index("split")))
    with pytest.raises(UserError, match="pairs-00000-of-00001.parquet is damaged .*split.*: delete it and run"):
        read_pairs(folder)
    assert not list((folder / ".arrow").iterdir())


def test_a_damaged_copy_is_named(folder):
    file = arrow_copies(folder)[1]
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError) as caught:
        read_pairs(folder)
    assert str(caught.value).startswith(f"{file} is damaged")
    file.unlink()
    assert read_pairs(folder).to_pylist() == ROWS


def read_with_little_room(folder, answers):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        read_pairs(folder)
    except UserError as error:
        answers.put(str(error))


def test_a_copy_without_room_is_named_and_leaves_nothing(tmp_path):
    folder = write_folder(tmp_path / "pairs", [ROWS, ROWS * 1000])
    context = forkserver()
    answers = context.Queue()
    process = context.Process(target=read_with_little_room, args=(folder, answers))
    process.start()
    message = answers.get(timeout=60)
    process.join(60)
    assert message.startswith(f"{folder / '.arrow' / 'pairs-00001-of-00002'}") and "File too large" in message
    assert message.endswith("make room for it there, and run again")
    assert not [path for path in (folder / ".arrow").iterdir() if "pairs-00000" not in path.name]
    assert read_pairs(folder).num_rows == 12_012
