"""Folders that already contain the same pairs, some of them, damaged ones, or something else."""

import shutil
from dataclasses import replace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clvp_train.errors import UserError
from clvp_train.pairs import (
    ARCodes,
    Storage,
    card,
    copy_tokenizer,
    generate,
    read_manifest,
    read_pairs,
    write_manifest,
)
from clvp_train.pairs.schema import shard_index, shard_name, write_shard
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


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}


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
    others = [name for name in times(folder) if shard_index(name) != shard_index(shard.name)]
    kept, data, report = times(folder), shard.read_bytes(), read_manifest(folder).report
    damage(shard)
    assert make() == str(folder)
    assert shard.read_bytes() == data and f"{shard}: missing or damaged" in caplog.text
    assert all(times(folder)[name] == kept[name] for name in others)
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
    assert not manifest.complete and manifest.settings["codes.shard_size"] == 4
    assert {shard_index(name) for name in times(folder)} == set(range(4))
    shard = sorted(folder.glob("train-*"))[2]
    kept = {name: time for name, time in times(folder).items() if shard_index(name) != 2}
    damage(shard)
    make()
    assert f"{shard}: missing or damaged" in caplog.text and kept.items() <= times(folder).items()
    for file, data in files(folder).items():
        if file.suffix not in (".json", ".md"):  # these contain the speed of the run
            assert data == complete[file]


def test_each_split_has_its_files(make, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    splits = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {name: set(split["split"]) for name, split in splits.items()} == {"train": {"train"}, "test": {"test"}}
    assert sum(map(len, splits.values())) == read_pairs(folder).num_rows == 19


def test_a_folder_of_an_earlier_version_keeps_its_layout(make, folder):
    """A file for each shard, with all splits."""
    manifest, shards = read_manifest(folder), []
    for index in range(5):
        parts = [pq.read_table(file).to_pylist() for file in sorted(folder.glob(f"*-{index:05d}-of-*"))]
        shards.append(write_shard(Storage(folder), shard_name(index, 5), [row for part in parts for row in part])[0])
    for file in [*folder.glob("train-*"), *folder.glob("test-*"), *folder.glob("val-*")]:
        file.unlink()
    write_manifest(folder, replace(manifest, shards=tuple(shards)))
    before = files(folder)
    make()
    assert files(folder) == before, "is found"
    (folder / shards[3].name).unlink()
    make()
    assert times(folder).keys() == {shard.name for shard in shards} and read_manifest(folder).shards[:3] == tuple(
        shards[:3]
    )
    assert card(read_manifest(folder)).count("data_files: pairs-*.parquet") == 1


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
