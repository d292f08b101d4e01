"""Folders that already contain the same pairs, some of them, damaged ones, or something else."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clvp_train.errors import UserError
from clvp_train.pairs import ARCodes, copy_tokenizer, generate, read_manifest, read_pairs
from clvp_train.tortoise import FrozenTortoise
from tests.unit.pairs.conftest import VOICES


@pytest.fixture
def make(tortoise, write_corpus, tmp_path):
    """Makes pairs of 20 texts, one of them too long, in five shards."""

    def make(folder=tmp_path / "pairs", **settings):
        lines = [f"text {number}" for number in range(19)] + ["far too long a text " * 30]
        source = ARCodes(VOICES, num_candidates=1, shard_size=4, **settings)
        return generate(write_corpus(lines), tortoise, source, folder=folder, test_percent=20)

    return make


@pytest.fixture
def folder(make, tmp_path):
    """A complete folder."""
    assert make() == str(tmp_path / "pairs")
    return tmp_path / "pairs"


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder, without=None):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet") if path != without}


def lose(shard):
    shard.unlink()


def cut(shard):
    shard.write_bytes(shard.read_bytes()[:-50])


def flip(shard):
    """Damages a shard without changing its size."""
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)


@pytest.mark.parametrize("damage", [lose, cut])
@pytest.mark.parametrize("number", [1, 4])
def test_complete_folder_is_repaired(make, folder, caplog, damage, number):
    shard = sorted(folder.glob("*.parquet"))[number]
    kept, data, report = times(folder, shard), shard.read_bytes(), read_manifest(folder).report
    damage(shard)
    assert make() == str(folder)
    assert shard.read_bytes() == data and f"{shard}: missing or damaged" in caplog.text
    assert times(folder, shard) == kept
    assert read_manifest(folder).report | {"codes_per_second": 0} == report | {"codes_per_second": 0}
    assert (folder / "skipped.jsonl").read_text().count("\n") == 1 and not (folder / ".progress").exists()


def test_a_damaged_list_of_skipped_rows_is_refused(make, folder):
    next(folder.glob("*.parquet")).unlink()
    path = folder / "skipped.jsonl"
    path.write_text(path.read_text().replace("too long", "too lonh"))
    with pytest.raises(UserError, match="skipped.jsonl: damaged"):
        make()


@pytest.mark.parametrize("damage", [lose, cut, flip])
def test_interrupted_folder_is_resumed_and_repaired(make, folder, tortoise, caplog, monkeypatch, damage):
    """The first run crashes after four of five shards."""
    complete = files(folder)
    shutil.rmtree(folder)
    candidates, calls = tortoise.candidates, list(range(4))

    def four_times(*arguments, **settings):
        calls.pop()
        return candidates(*arguments, **settings)

    monkeypatch.setattr(tortoise, "candidates", four_times)
    with pytest.raises(IndexError):
        make()
    monkeypatch.undo()
    manifest = read_manifest(folder)
    assert not manifest.complete and manifest.settings["codes.shard_size"] == 4 and len(times(folder)) == 4
    shard = sorted(folder.glob("*.parquet"))[2]
    kept = times(folder, shard)
    damage(shard)
    make()
    assert f"{shard}: missing or damaged" in caplog.text and kept.items() <= times(folder, shard).items()
    for file, data in files(folder).items():
        if file.suffix not in (".json", ".md"):  # these contain the speed of the run
            assert data == complete[file]


def test_records_left_by_a_kill_at_the_end_are_removed(make, folder):
    before = times(folder)
    (folder / ".progress").mkdir()
    (folder / ".progress/00000.json").write_text("{}")
    assert make() == str(folder)
    assert times(folder) == before and not (folder / ".progress").exists()


def test_pairs_of_other_settings_are_refused(make, folder):
    before = files(folder)
    with pytest.raises(UserError, match="other settings: codes.seed .0 in the folder, 1 now.*output_dir"):
        make(seed=1)
    assert files(folder) == before


def test_other_parquet_files_are_refused_and_other_files_kept(make, tmp_path):
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs/README.md").write_text("mine")
    pq.write_table(pa.table({"mine": [1]}), tmp_path / "pairs/mine.parquet")
    before = files(tmp_path / "pairs")
    with pytest.raises(UserError, match="contains mine.parquet but no manifest.json.*output_dir"):
        make()
    assert files(tmp_path / "pairs") == before
    (tmp_path / "pairs/mine.parquet").unlink()
    make()
    assert (tmp_path / "pairs/README.md").read_text() == "mine"


def test_remote_folder_equals_a_local_one(make, folder, tortoise, tmp_path):
    remote = make("memory://test_writer/pairs")
    assert remote == "memory://test_writer/pairs" and make(remote) == remote
    assert read_manifest(remote).shards == read_manifest(folder).shards
    assert read_pairs(remote).equals(read_pairs(folder))
    with pytest.raises(UserError, match=f"{remote}: contains pairs made with other settings"):
        make(remote, seed=1)
    text = "The quick brown fox."
    for source in (remote, folder):
        copy_tokenizer(source, tmp_path / "model")
        tokenizer = FrozenTortoise.load_tokenizer(tmp_path / "model")
        assert tokenizer(text)["input_ids"] == tortoise.tokenize(text)
        shutil.rmtree(tmp_path / "model")
    with pytest.raises(UserError, match="tokenizer: missing. Copy it"):
        copy_tokenizer(tmp_path / "model", tmp_path / "other")
