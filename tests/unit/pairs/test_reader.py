import errno
import json
import logging
import multiprocessing
import os
import resource
from pathlib import Path
from random import Random
from shutil import _ntuple_diskusage as Usage

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from clvp_train.errors import UserError
from clvp_train.pairs import SCHEMA, Storage, arrow_copies, open_copies, read_manifest, read_pairs, reader
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
    assert sorted((folder / ".arrow").glob("*.arrow")) == files
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
    assert len(list((folder / ".arrow").glob("*.arrow"))) == SHARDS


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


def flip(path, random):
    """Flips a bit and returns the original content."""
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    path.write_bytes(damaged)
    return content


def test_no_flipped_bit_of_a_shard_manifest_or_copy_is_read(folder):
    random, manifest, (copy, *_) = Random(0), read_manifest(folder), arrow_copies(folder)
    for _ in range(30):
        flip(copy, random)
        assert read_pairs(folder).to_pylist() == ROWS
        content = flip(folder / "manifest.json", random)
        try:
            assert read_manifest(folder) == manifest, "neither refused nor the same"
        except UserError as error:
            assert "manifest.json: damaged" in str(error)
        (folder / "manifest.json").write_bytes(content)
        copy.unlink()
        content = flip(shard(folder, 0), random)
        fails(folder, f"{shard(folder, 0).name}: damaged .*Delete it and run")
        shard(folder, 0).write_bytes(content)
        read_pairs(folder)


@pytest.mark.parametrize("name", ["../../pairs.parquet", "/tmp/pairs.parquet", ".hidden.parquet"])
@pytest.mark.parametrize("field", ["name", "sha256"])
def test_a_manifest_cannot_name_files_elsewhere(folder, field, name):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["shards"][0][field] = name
    (folder / "manifest.json").write_text(json.dumps(manifest))
    fails(folder, "manifest.json: damaged .not a shard")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"id": None}, "id is null"),
        ({"text": None}, "text is null"),
        ({"split": None}, "split is not train, val or test"),
        ({"split": "dev"}, "split is not train, val or test"),
        ({"input_ids": None}, "input_ids is null"),
        ({"input_ids": []}, "input_ids is empty"),
        ({"speech_ids": []}, "speech_ids is empty"),
        ({"speech_ids": [1, -1]}, "speech_ids contains -1, but ids are 0 to 31"),
        ({"input_ids": [32]}, "input_ids contains 32, but ids are 0 to 31"),
        ({"speech_ids": [3, None]}, "speech_ids contains None, but ids are 0 to 31"),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_named(tmp_path, changes, problem):
    rows = [*ROWS * 700, ROWS[1] | changes, ROWS[2] | changes]
    folder = write_folder(tmp_path / "pairs", [ROWS, rows])
    fails(folder, f"pairs-00001-of-00002.parquet, row 8400: {problem}")


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


def test_copies_that_cannot_fit_are_refused_before_they_are_made(folder, monkeypatch):
    monkeypatch.setattr(reader.shutil, "disk_usage", lambda path: Usage(0, 0, 100))
    fails(folder, r"\.arrow: copies of the pairs take more than 0.0 GB, but 0.0 GB are free. Free .*set data.cache_gb")
    assert not list((folder / ".arrow").iterdir())


def test_many_shards_share_copies(tmp_path, monkeypatch):
    rows = [pair(number) for number in range(14)]
    folder = write_folder(tmp_path / "pairs", [rows[2 * shard : 2 * shard + 2] for shard in range(7)])
    monkeypatch.setattr(reader, "MAX_COPIES", 6)
    monkeypatch.setattr(reader, "MERGED_BYTES", 3 * max(shard.bytes for shard in read_manifest(folder).shards))
    assert read_pairs(folder).to_pylist() == rows
    files = arrow_copies(folder)
    assert [len(open_copies([file])) for file in files] == [6, 6, 2] and files[0].stem.startswith(
        "pairs-00000-of-00007-and-2-more-"
    )
    with pa.memory_map(str(files[0])) as source:
        assert pa.ipc.open_file(source).num_record_batches == 1
    (folder / "pairs-00003-of-00007.parquet").write_bytes(bytes(read_manifest(folder).shards[3].bytes))
    files[1].unlink()
    fails(folder, "pairs-00003-of-00007.parquet: damaged")


def test_too_many_memory_maps(folder, monkeypatch):
    copies = arrow_copies(folder)
    monkeypatch.setattr(
        pa, "memory_map", lambda path: (_ for _ in ()).throw(OSError(errno.ENOMEM, "Cannot allocate memory"))
    )
    with pytest.raises(UserError, match=r"too many memory maps.*Raise vm.max_map_count"):
        open_copies(copies)
