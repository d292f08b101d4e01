import hashlib
import shutil
import time
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from clvp_train.corpus import split_of
from clvp_train.pairs import TOKENIZER, ARCodes, generate, read_manifest, read_pairs
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio
from tests.unit.pairs.conftest import DATA, VOICES

FEW = {"num_candidates": 2, "shard_size": 8}  # 20 texts fill three shards


def make(corpus, tortoise, codes, folder, test_percent=20, val_percent=20):
    """Generates below `folder`, where equal inputs reuse their pairs."""
    made = generate(corpus, tortoise, codes, cache_dir=folder, test_percent=test_percent, val_percent=val_percent)
    return Path(made)


def source(**settings):
    return ARCodes(VOICES, **FEW | settings)


def same_draws(rows, others):
    """Whether two lists of rows are equal except for rounding, which depends on the batch."""
    for row, other in zip(rows, others, strict=True):
        if row.pop("log_probability") != pytest.approx(other.pop("log_probability"), rel=1e-4) or row != other:
            return False
    return True


@pytest.fixture
def made(tortoise, write_corpus, tmp_path):
    """Pairs of 20 texts in three shards."""
    return make(write_corpus(), tortoise, source(), tmp_path / "codes")


def test_every_text_has_its_split_tokens_and_candidates(made, tortoise, write_corpus):
    rows = read_pairs(made).to_pylist()
    texts = [utterance.text for utterance in write_corpus()]
    assert {row["text"] for row in rows} == set(texts)
    for text in texts:
        of_text = [row for row in rows if row["text"] == text]
        split = split_of(text, 20, 20)
        assert [row["candidate"] for row in of_text] == ([0, 1] if split == "train" else [0])
        assert {row["split"] for row in of_text} == {split}
        assert all(row["input_ids"] == tortoise.tokenize(text) for row in of_text)
        assert len({row["seed"] for row in of_text}) == len(of_text)
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert all(0 < len(row["speech_ids"]) <= 6 and max(row["speech_ids"]) < 2048 for row in rows)
    assert all(row["finished"] == (len(row["speech_ids"]) < 6) for row in rows)
    assert {row["voice"] for row in rows} == {path.name for path in (DATA / "voices").iterdir()}


def test_log_probabilities_and_seeds_reproduce_the_draw(made, tortoise):
    row = read_pairs(made).to_pylist()[3]
    latent = tortoise.conditioning_latent(
        [load_audio(path) for path in sorted((DATA / "voices" / row["voice"]).iterdir())]
    )
    [[candidate]] = tortoise.candidates([row["input_ids"]], latent, 1, row["seed"])
    assert list(candidate.codes) == row["speech_ids"] and candidate.finished == row["finished"]
    assert row["log_probability"] == pytest.approx(candidate.log_probability, rel=1e-4) and row["log_probability"] < 0


def test_folder_and_manifest(made, tortoise):
    manifest = read_manifest(made)
    assert manifest.fingerprint.startswith(made.name.split("-")[-1]) and made.name.startswith("corpus-txt-ar-")
    assert (manifest.corpus, manifest.source, manifest.num_shards) == ("corpus.txt", "ar", 3)
    assert (manifest.text_vocab_size, manifest.speech_vocab_size) == (256, 2048)
    assert manifest.settings["codes.num_candidates"] == 2 and manifest.settings["tortoise.sampling.max_codes"] == 6
    assert manifest.settings["split.test_percent"] == 20 and set(manifest.versions) == {"clvp_train", "torch"}
    assert FrozenTortoise.load_tokenizer(made / TOKENIZER)("word")["input_ids"] == tortoise.tokenize("word")
    names = [shard.name for shard in manifest.shards]
    assert {path.name for path in made.iterdir()} == {*names, "manifest.json", "README.md", "tokenizer"}
    assert manifest.complete and {f"train-{index:05d}-of-00003.parquet" for index in range(3)} <= set(names)
    for shard in manifest.shards:
        data = (made / shard.name).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert shard.rows == pq.read_table(made / shard.name).num_rows


def test_datasets_opens_the_folder(made, tmp_path):
    """The JSON files of tokenizer and manifest do not interfere."""
    opened, rows = datasets.load_dataset(str(made), cache_dir=str(tmp_path / "cache")), read_pairs(made).to_pylist()
    for name, split in (("train", "train"), ("validation", "val"), ("test", "test")):
        assert opened[name].to_list() == [row for row in rows if row["split"] == split]


def test_equal_inputs_reuse_the_folder(made, tortoise, write_corpus, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    started = time.monotonic()
    assert make(write_corpus(), tortoise, source(batch_size=3), tmp_path / "codes") == made
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before
    assert time.monotonic() - started < 2


def test_any_other_input_gives_another_folder(made, tortoise, write_corpus, tmp_path):
    codes, corpus = tmp_path / "codes", write_corpus()
    fewer, edited = tmp_path / "fewer", tmp_path / "edited"
    for voices in (fewer, edited):
        shutil.copytree(DATA / "voices", voices)
    shutil.rmtree(fewer / "joe")
    shutil.copy(DATA / "voices/awb/1.flac", edited / "joe/1.flac")
    warmer = FrozenTortoise.from_pretrained(DATA / "tortoise", sampling={"max_codes": 6, "temperature": 0.9})
    trained = FrozenTortoise.from_pretrained(DATA / "tortoise", "trained", sampling={"max_codes": 6})
    settings = [{"seed": 1}, {"num_candidates": 1}, {"num_eval_candidates": 2}, {"shard_size": 9}]
    folders = [made, *(make(corpus, tortoise, source(**changed), codes) for changed in settings)]
    folders += [make(corpus, tortoise, source(), codes, 20, 10)]
    folders += [make(corpus, tortoise, ARCodes(str(voices), **FEW), codes) for voices in (fewer, edited)]
    folders += [make(corpus, other, source(), codes) for other in (warmer, trained)]
    folders += [make(write_corpus(21, "longer.txt"), tortoise, source(), codes)]
    assert len(set(folders)) == len(folders)


def test_candidates_and_seeds_give_different_codes(write_corpus, tmp_path):
    """In a single voice, so that only the draws differ."""
    tortoise = FrozenTortoise.from_pretrained(DATA / "tortoise", sampling={"max_codes": 40})
    shutil.copytree(DATA / "voices/awb", tmp_path / "voices/awb")
    drawn = []
    for seed in (0, 1):
        codes = ARCodes(str(tmp_path / "voices"), num_candidates=2, seed=seed)
        rows = read_pairs(make(write_corpus(10), tortoise, codes, tmp_path / "codes", 0, 0)).to_pylist()
        by_candidate = [[row["speech_ids"] for row in rows if row["candidate"] == k] for k in (0, 1)]
        assert sum(a != b for a, b in zip(*by_candidate)) > 5
        drawn.append(by_candidate[0])
    assert sum(a != b for a, b in zip(*drawn)) > 5


@pytest.mark.parametrize("batch_size", [1, 5])
def test_codes_do_not_depend_on_the_batch(made, tortoise, write_corpus, tmp_path, batch_size):
    folder = make(write_corpus(), tortoise, source(batch_size=batch_size), tmp_path / "again")
    assert same_draws(read_pairs(folder).to_pylist(), read_pairs(made).to_pylist())


def test_codes_do_not_depend_on_other_texts(made, tortoise, write_corpus, tmp_path):
    lines = [utterance.text for utterance in write_corpus()]
    folder = make(write_corpus(lines[:9], "less.txt"), tortoise, source(), tmp_path / "codes")
    few = read_pairs(folder).to_pylist()
    assert same_draws(few, [row for row in read_pairs(made).to_pylist() if row["text"] in lines[:9]])
