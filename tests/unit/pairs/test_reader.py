import logging
import multiprocessing
import os
import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from clvp_train.errors import UserError
from clvp_train.pairs import SCHEMA, Storage, arrow_copies, open_copies, read_pairs
from tests.unit.pairs_folder import pair, write_folder

SHARDS = 3
ROWS = [pair(number) for number in range(12)]


def write(folder, **changes):
    return write_folder(folder, [ROWS[4 * shard : 4 * shard + 4] for shard in range(SHARDS)], **changes)


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "pairs [1]*")  # looks like a pattern


def shard(folder, index):
    return folder / f"pairs-{index:05d}-of-{SHARDS:05d}.parquet"


def fails(folder, message):
    with pytest.raises(UserError, match=message) as caught:
        read_pairs(folder)
    assert "\n" not in str(caught.value)


def test_rows_and_columns(folder):
    descriptors = len(os.listdir("/proc/self/fd"))
    pairs = read_pairs(folder)
    assert len(os.listdir("/proc/self/fd")) == descriptors, "no file stays open"
    assert pairs.to_pylist() == ROWS and pairs.schema.equals(SCHEMA)
    assert read_pairs(str(folder)).equals(pairs) and read_pairs(f"file://{folder}").equals(pairs)
    columns = [{"speech_ids": row["speech_ids"], "id": row["id"]} for row in ROWS]
    assert read_pairs(folder, ["speech_ids", "id"]).to_pylist() == columns


@pytest.mark.parametrize("part", ["shards", "copies"])
def test_folders_of_older_versions_have_no_quality(tmp_path, monkeypatch, part):
    older = pa.schema([field for field in SCHEMA if field.name != "quality"])
    folder = write_folder(tmp_path / "pairs", [ROWS[:5], ROWS[5:]], schema=older)
    if part == "copies":
        monkeypatch.setattr("clvp_train.pairs.reader.SCHEMA", older)
        monkeypatch.setattr("clvp_train.pairs.reader.ADDED", ())
        arrow_copies(folder)
        monkeypatch.undo()
    assert read_pairs(folder).to_pylist() == [row | {"quality": None} for row in ROWS]


def test_pairs_are_memory_mapped(tmp_path):
    files = arrow_copies(write_folder(tmp_path / "pairs", [ROWS * 1000] * 2))
    before = pa.total_allocated_bytes()
    pairs = open_copies(files)
    assert pa.total_allocated_bytes() - before < 10_000 < pairs.nbytes
    mapped = Path("/proc/self/maps").read_text()
    assert all(str(file) in mapped for file in files)


def test_shards_are_copied_once(folder, caplog):
    caplog.set_level(logging.INFO)
    files = arrow_copies(folder)
    times = [file.stat().st_mtime_ns for file in files]
    assert f"copying 3 shards to {folder / '.arrow'}" in caplog.text
    caplog.clear()
    assert arrow_copies(folder) == files and [file.stat().st_mtime_ns for file in files] == times and not caplog.text
    files[1].unlink()
    assert read_pairs(folder).to_pylist() == ROWS and "copying 1 shards" in caplog.text
    assert sorted((folder / ".arrow").iterdir()) == files
    write_folder(folder, [ROWS[8:], ROWS[4:8], ROWS[:4]])
    assert read_pairs(folder).to_pylist() == ROWS[8:] + ROWS[4:8] + ROWS[:4], "new shards of the same names"


def test_large_empty_and_no_shards(tmp_path):
    rows = [ROWS[number % 12] | {"seed": number} for number in range(9000)]
    assert read_pairs(write_folder(tmp_path / "large", [rows, [], rows[:5]])).to_pylist() == rows + rows[:5]
    none = read_pairs(write_folder(tmp_path / "none", []))
    assert none.num_rows == 0 and none.schema.equals(SCHEMA)


def start(function, *arguments):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clvp_train.pairs"])
    answers = context.Queue()
    process = context.Process(target=function, args=(*arguments, answers))
    process.start()
    return process, answers


def read_at_once(folder, event, answers):
    event.wait(60)
    answers.put(read_pairs(folder).to_pylist() == ROWS)


def test_processes_copy_concurrently(folder):
    event = multiprocessing.get_context("forkserver").Event()
    started = [start(read_at_once, folder, event) for _ in range(4)]
    event.set()
    assert [answers.get(timeout=60) for _, answers in started] == [True] * 4
    for process, _ in started:
        process.join(60)
    assert len(list((folder / ".arrow").iterdir())) == SHARDS


def test_remote_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    url = "memory://reader/pairs"
    write(url)
    try:
        assert read_pairs(url).to_pylist() == ROWS
        assert {file.parent for file in arrow_copies(url)} == {tmp_path / "home" / "clvp_train"}
        Storage(url).remove(shard(Path(), 1).name)
        fails(url, "memory://reader/pairs/pairs-00001-of-00003.parquet: missing")
    finally:
        Storage(url).remove("")


def test_incomplete_folder(folder):
    write(folder, complete=False)
    shard(folder, 2).unlink()
    fails(folder, "incomplete, 2 of 3 shards. Run the same generate command again")


@pytest.mark.parametrize("read_before", [False, True])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "text", "columns", "body"])
def test_missing_or_damaged_shard(folder, damage, read_before):
    if read_before:
        read_pairs(folder)
    path = shard(folder, 1)
    intact = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "columns":
        pq.write_table(pa.table({"other": [1]}), path)
    else:
        body = intact[:4] + bytes(len(intact) - 12) + intact[-8:]
        path.write_bytes({"cut": intact[:-50], "empty": b"", "text": b"no parquet" * 10, "body": body}[damage])
    if damage == "body" and read_before:  # its size is right, and the copy was made before
        assert read_pairs(folder).to_pylist() == ROWS
        return
    fails(folder, f"{path.name}: missing. Run" if damage == "missing" else f"{path.name}: damaged .*Delete it and run")


def test_shard_without_a_column(tmp_path):
    folder = write_folder(tmp_path / "pairs", [ROWS], schema=SCHEMA.remove(SCHEMA.get_field_index("split")))
    fails(folder, "pairs-00000-of-00001.parquet: damaged .*split.*Delete it")
    assert not list((folder / ".arrow").iterdir())


def test_damaged_copy(folder):
    file = arrow_copies(folder)[1]
    file.write_bytes(file.read_bytes()[:-40])
    fails(folder, f"{file.name}: damaged")
    file.unlink()
    assert read_pairs(folder).to_pylist() == ROWS


def read_with_file_limit(folder, answers):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        read_pairs(folder)
    except UserError as error:
        answers.put(str(error))


def test_no_space_for_a_copy(tmp_path):
    folder = write_folder(tmp_path / "pairs", [ROWS, ROWS * 1000])
    process, answers = start(read_with_file_limit, folder)
    message = answers.get(timeout=60)
    process.join(60)
    assert "pairs-00001-of-00002" in message and "File too large" in message and "Free some disk space" in message
    assert not [path for path in (folder / ".arrow").iterdir() if "pairs-00000" not in path.name]
    assert read_pairs(folder).num_rows == 12_012
