"""What lies in the folder already: the same pairs, some of them, damaged ones, or something else."""

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
    """Pairs of 20 texts, one of them too long, in five shards of the folder given."""

    def make(folder=tmp_path / "pairs", **settings):
        lines = [f"text {number}" for number in range(19)] + ["far too long a text " * 30]
        source = ARCodes(VOICES, num_candidates=1, shard_size=4, **settings)
        return generate(write_corpus(lines), tortoise, source, folder=folder, test_percent=20)

    return make


@pytest.fixture
def made(make, tmp_path):
    """In a folder named by the user."""
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
    """The same size."""
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)


@pytest.mark.parametrize("damage", [lose, cut])
@pytest.mark.parametrize("number", [1, 4])
def test_a_lost_or_cut_shard_of_finished_pairs_is_made_again(make, made, caplog, damage, number):
    before, shard = times(made), sorted(made.glob("*.parquet"))[number]
    whole, report = shard.read_bytes(), read_manifest(made).report
    damage(shard)
    assert make() == str(made)
    assert shard.read_bytes() == whole and f"{shard} is missing or damaged: made again" in caplog.text
    assert {name: time for name, time in times(made).items() if name != shard.name} == {
        name: time for name, time in before.items() if name != shard.name
    }, "the others are kept"
    again = read_manifest(made).report
    assert {**again, "codes_per_second": 0} == {**report, "codes_per_second": 0}
    assert (made / "skipped.jsonl").read_text().count("\n") == 1 and not (made / ".progress").exists()


@pytest.mark.parametrize("damage", [lose, cut, flip])
def test_a_damaged_shard_of_an_unfinished_folder_is_made_again(make, made, tortoise, caplog, monkeypatch, damage):
    """A run that stops after four of five shards, as a crash would stop it."""
    whole = files(made)
    shutil.rmtree(made)
    candidates, left = tortoise.candidates, iter(range(4))

    def four_times(*arguments, **settings):
        next(left)
        return candidates(*arguments, **settings)

    monkeypatch.setattr(tortoise, "candidates", four_times)
    with pytest.raises(StopIteration):
        make()
    monkeypatch.undo()
    begun = read_manifest(made)
    assert not begun.complete and begun.settings["codes.shard_size"] == 4, "it is there before the first shard"
    assert len(times(made)) == 4
    shard = sorted(made.glob("*.parquet"))[2]
    kept = {name: time for name, time in times(made).items() if name != shard.name}
    damage(shard)
    make()
    assert f"{shard} is missing or damaged: made again" in caplog.text
    assert {name: time for name, time in times(made).items() if name in kept} == kept
    for file, data in files(made).items():
        if file.suffix not in (".json", ".md"):  # which tell this run's speed
            assert data == whole[file]


def test_what_a_kill_leaves_at_the_very_end_is_cleared_away(make, made):
    """The final manifest is there, the records are not yet removed."""
    before = times(made)
    (made / ".progress").mkdir()
    (made / ".progress/00000.json").write_text("{}")
    assert make() == str(made)
    assert times(made) == before and not (made / ".progress").exists()


def test_pairs_of_other_settings_are_not_touched(make, made):
    before = files(made)
    with pytest.raises(
        UserError, match=f"{made} holds pairs made from something else: codes.seed .0 there, 1 now.; set"
    ):
        make(seed=1)
    assert files(made) == before


def test_foreign_parquet_files_are_not_touched(make, tmp_path):
    (tmp_path / "pairs").mkdir()
    pq.write_table(pa.table({"mine": [1]}), tmp_path / "pairs/mine.parquet")
    before = files(tmp_path / "pairs")
    with pytest.raises(UserError, match=f"{tmp_path}/pairs holds mine.parquet but no manifest.json.*: set output_dir"):
        make()
    assert files(tmp_path / "pairs") == before


def test_a_users_other_files_stay(make, tmp_path):
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs/README.md").write_text("mine")
    make()
    assert (tmp_path / "pairs/README.md").read_text() == "mine"


@pytest.mark.parametrize("place", ["local", "memory://test_copy_tokenizer"])
def test_the_tokenizer_goes_from_the_pairs_to_the_model(make, tortoise, tmp_path, place):
    folder = make(tmp_path / "pairs" if place == "local" else place)
    copy_tokenizer(folder, tmp_path / "model")
    text = "The quick brown fox."
    assert FrozenTortoise.load_tokenizer(tmp_path / "model")(text)["input_ids"] == tortoise.tokenize(text)
    with pytest.raises(UserError, match="tokenizer is missing: copy it from the Tortoise"):
        copy_tokenizer(tmp_path / "model", tmp_path / "other")


def test_pairs_lie_wherever_fsspec_reaches(make, made):
    remote = make("memory://test_folder_choice/pairs")
    assert remote == "memory://test_folder_choice/pairs" and make(remote) == remote
    assert read_manifest(remote).shards == read_manifest(made).shards
    assert read_pairs(remote).equals(read_pairs(made))
    with pytest.raises(UserError, match=f"{remote} holds pairs made from something else"):
        make(remote, seed=1)
