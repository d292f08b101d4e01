import shutil
import time

import pytest

from clvp_train.codes import TOKENIZER, ARCodes, DVAECodes, generate, read_manifest, read_pairs
from clvp_train.corpus import Manifest, split_of
from clvp_train.errors import UserError
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio
from tests.unit.codes.conftest import DATA, VOICES

FEW = {"num_candidates": 2}


def source(**settings):
    return ARCodes(VOICES, **FEW | settings)


@pytest.fixture
def made(tortoise, write_corpus, small_shards, tmp_path):
    """Pairs of 20 texts in three shards."""
    return generate(write_corpus(), tortoise, source(), tmp_path / "codes", 20, 20)


def test_pairs_hold_every_text_with_its_split_tokens_and_candidates(made, tortoise, write_corpus):
    rows = read_pairs(made).to_pylist()
    texts = [utterance.text for utterance in write_corpus()]
    assert list(dict.fromkeys(row["text"] for row in rows)) == texts
    for text in texts:
        of_text = [row for row in rows if row["text"] == text]
        split = split_of(text, 20, 20)
        assert [row["candidate"] for row in of_text] == ([0, 1] if split == "train" else [0])
        assert {row["split"] for row in of_text} == {split}
        assert all(row["input_ids"] == tortoise.tokenize(text) for row in of_text)
        assert len({row["seed"] for row in of_text}) == len(of_text)
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert all(0 < len(row["speech_ids"]) <= 6 and max(row["speech_ids"]) < 512 for row in rows)
    assert all(row["finished"] == (len(row["speech_ids"]) < 6) for row in rows)
    assert {row["voice"] for row in rows} == {path.name for path in (DATA / "voices").iterdir()}


def test_the_manifest_says_what_the_folder_holds(made, tortoise):
    manifest = read_manifest(made)
    assert manifest.fingerprint.startswith(made.name.split("-")[-1]) and made.name.startswith("corpus-txt-ar-")
    assert (manifest.corpus, manifest.source, manifest.num_shards) == ("corpus.txt", "ar", 3)
    assert (manifest.text_vocab_size, manifest.speech_vocab_size) == (256, 512)
    assert FrozenTortoise.load_tokenizer(made / TOKENIZER)("word")["input_ids"] == tortoise.tokenize("word")


def test_no_partial_file_stays(made):
    assert not [path for path in made.rglob("*") if "partial" in path.name]


def test_the_same_inputs_are_found_again_without_work(made, tortoise, write_corpus, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    started = time.monotonic()
    assert generate(write_corpus(), tortoise, source(batch_size=3), tmp_path / "codes", 20, 20) == made
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before
    assert time.monotonic() - started < 2


def test_a_lost_shard_is_made_again_and_the_others_are_kept(made, tortoise, write_corpus, tmp_path):
    whole, lost = read_pairs(made), sorted(made.glob("*.parquet"))[1]
    before = {path: path.stat().st_mtime_ns for path in made.glob("*.parquet") if path != lost}
    lost.unlink()
    (made / f".{lost.name}.99999.partial").write_bytes(b"half a shard of a run that was killed")
    assert generate(write_corpus(), tortoise, source(), tmp_path / "codes", 20, 20) == made
    assert read_pairs(made).equals(whole)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_any_other_input_gives_another_folder(made, tortoise, write_corpus, tmp_path):
    codes, corpus = tmp_path / "codes", write_corpus()
    other_voices = tmp_path / "voices"
    shutil.copytree(DATA / "voices", other_voices)
    shutil.rmtree(other_voices / "joe")
    same_but_edited = tmp_path / "edited"
    shutil.copytree(DATA / "voices", same_but_edited)
    shutil.copy(DATA / "voices/awb/1.flac", same_but_edited / "joe/1.flac")
    warmer = FrozenTortoise.from_pretrained(DATA / "tortoise", sampling={"max_codes": 6, "temperature": 0.9})
    trained = FrozenTortoise.from_pretrained(DATA / "tortoise", "trained", sampling={"max_codes": 6})
    folders = [made]
    folders += [generate(corpus, tortoise, source(seed=1), codes, 20, 20)]
    folders += [generate(corpus, tortoise, source(num_candidates=1), codes, 20, 20)]
    folders += [generate(corpus, tortoise, source(num_eval_candidates=2), codes, 20, 20)]
    folders += [generate(corpus, tortoise, source(), codes, 20, 10)]
    folders += [generate(corpus, tortoise, ARCodes(str(other_voices), **FEW), codes, 20, 20)]
    folders += [generate(corpus, tortoise, ARCodes(str(same_but_edited), **FEW), codes, 20, 20)]
    folders += [generate(corpus, other, source(), codes, 20, 20) for other in (warmer, trained)]
    folders += [generate(write_corpus(21, "longer.txt"), tortoise, source(), codes, 20, 20)]
    assert len(set(folders)) == len(folders)
    seeds = [row["speech_ids"] for folder in folders[:2] for row in read_pairs(folder).to_pylist()]
    assert seeds[: len(seeds) // 2] != seeds[len(seeds) // 2 :]


def test_candidates_of_a_text_and_seeds_of_a_corpus_draw_different_codes(write_corpus, tmp_path):
    """In one voice, so that nothing but the draw differs."""
    tortoise = FrozenTortoise.from_pretrained(DATA / "tortoise", sampling={"max_codes": 40})
    shutil.copytree(DATA / "voices/awb", tmp_path / "voices/awb")
    drawn = []
    for seed in (0, 1):
        codes = ARCodes(str(tmp_path / "voices"), num_candidates=2, seed=seed)
        rows = read_pairs(generate(write_corpus(10), tortoise, codes, tmp_path / "codes", 0, 0)).to_pylist()
        by_candidate = [[row["speech_ids"] for row in rows if row["candidate"] == k] for k in (0, 1)]
        assert sum(one != other for one, other in zip(*by_candidate)) > 5
        drawn.append(by_candidate[0])
    assert sum(one != other for one, other in zip(*drawn)) > 5


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_text_gets_the_same_codes_in_whatever_batch(made, tortoise, write_corpus, tmp_path, batch_size):
    folder = generate(write_corpus(), tortoise, source(batch_size=batch_size), tmp_path / "again", 20, 20)
    assert read_pairs(folder).equals(read_pairs(made))


def test_a_text_gets_the_same_codes_whatever_else_the_corpus_holds(made, tortoise, write_corpus, tmp_path):
    lines = [utterance.text for utterance in write_corpus()]
    folder = generate(write_corpus(lines[:9], "less.txt"), tortoise, source(), tmp_path / "codes", 20, 20)
    few = read_pairs(folder).to_pylist()
    assert few == [row for row in read_pairs(made).to_pylist() if row["text"] in lines[:9]]


def test_dvae_codes_are_those_of_the_recordings_in_whatever_batch(tortoise, write_recordings, small_shards, tmp_path):
    corpus = Manifest(str(write_recordings(["a", "b", ""] * 3)))
    tables = [read_pairs(generate(corpus, tortoise, DVAECodes(size), tmp_path / str(size))) for size in (1, 4, 32)]
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])
    rows, utterances = tables[0].to_pylist(), list(corpus)
    assert len(rows) == 9
    for row, utterance in zip(rows, utterances):
        assert row["speech_ids"] == tortoise.speech_codes([load_audio(utterance.audio)])[0]
        assert row["voice"] == (utterance.speaker or "unknown") and row["id"] == utterance.id
    assert len(rows[-1]["speech_ids"]) > len(rows[0]["speech_ids"]) > 0


def test_with_voices_from_the_corpus_each_text_is_said_by_its_own_speaker(tortoise, write_recordings, tmp_path):
    corpus = Manifest(str(write_recordings(["a", "b", "", "b", "", "a"])))
    codes = ARCodes("corpus", num_candidates=3, clips_per_voice=1)
    rows = read_pairs(generate(corpus, tortoise, codes, tmp_path / "codes", 0, 0)).to_pylist()
    voices = {row["id"]: set() for row in rows}
    for row in rows:
        voices[row["id"]].add(row["voice"])
    assert list(voices.values()) == [{"a"}, {"b"}, {"unknown"}, {"b"}, {"unknown"}, {"a"}]
    latent = codes._latent(tortoise, "a")  # of the longest clip, the sixth
    assert latent.equal(tortoise.latent([load_audio(tmp_path / "5.wav")]))


def refused(message, corpus, tortoise, codes, folder):
    with pytest.raises(UserError, match=message):
        generate(corpus, tortoise, codes, folder)
    assert not folder.exists(), "nothing is written before all is checked"


def test_a_text_corpus_has_no_recordings_to_encode(tortoise, write_corpus, tmp_path):
    refused("utterance 000001 has no audio.*codes=ar", write_corpus(), tortoise, DVAECodes(), tmp_path / "codes")


def test_a_text_corpus_has_no_voices_of_its_own(tortoise, write_corpus, tmp_path):
    message = "utterance 000001 has no audio, so codes.voices=corpus .*give a folder"
    refused(message, write_corpus(), tortoise, ARCodes("corpus"), tmp_path / "codes")


def test_a_tortoise_without_dvae_says_so(write_recordings, tmp_path):
    shutil.copytree(DATA / "tortoise", tmp_path / "bare", ignore=shutil.ignore_patterns("dvae"))
    bare = FrozenTortoise.from_pretrained(tmp_path / "bare")
    corpus = Manifest(str(write_recordings(["a"])))
    refused(f"{tmp_path / 'bare'} has no DVAE", corpus, bare, DVAECodes(), tmp_path / "codes")


def test_voices_that_are_missing_or_empty_are_named(tortoise, write_corpus, tmp_path):
    (tmp_path / "empty" / "voice").mkdir(parents=True)
    for voices, message in (("nowhere", "is no folder: give one"), ("empty", "holds no voice: make a subfolder")):
        path = tmp_path / voices
        refused(f"codes.voices={path} {message}", write_corpus(), tortoise, ARCodes(str(path)), tmp_path / "codes")


def test_a_text_beyond_the_limit_of_the_ar_is_named_before_any_work(tortoise, write_corpus, tmp_path):
    corpus = write_corpus(["short", "far too long a text " * 30])
    refused("utterance 000002: text 'far too long .*split it", corpus, tortoise, source(), tmp_path / "codes")


def test_an_unreadable_recording_is_named(tortoise, write_recordings, tmp_path):
    corpus = Manifest(str(write_recordings(["a", "b"])))
    (tmp_path / "1.wav").write_text("no sound")
    with pytest.raises(UserError, match=f"audio file {tmp_path / '1.wav'} cannot be read"):
        generate(corpus, tortoise, DVAECodes(), tmp_path / "codes")


@pytest.mark.parametrize("name", ["num_candidates", "num_eval_candidates", "batch_size", "clips_per_voice"])
@pytest.mark.parametrize("value", [0, -1, "abc", 1.5])
def test_a_count_that_makes_no_sense_is_named(name, value):
    with pytest.raises(UserError, match=f"codes.{name}={value}: set it to a whole number, 1 or more"):
        ARCodes(VOICES, **{name: value})
    with pytest.raises(UserError, match="codes.batch_size"):
        DVAECodes(batch_size=value)


@pytest.mark.parametrize(("test", "val"), [(-1, 5), (60, 41), ("abc", 5), (5, None)])
def test_shares_that_make_no_sense_are_named(tortoise, write_corpus, tmp_path, test, val):
    with pytest.raises(UserError, match="_percent="):
        generate(write_corpus(), tortoise, source(), tmp_path / "codes", test, val)


def test_texts_beyond_the_limit_are_skipped_on_demand(tortoise, write_corpus, tmp_path, caplog):
    corpus = write_corpus(["A short line.", "word " * 200, "Another line."])
    pairs = read_pairs(generate(corpus, tortoise, source(too_long="skip"), tmp_path / "codes", 0, 0))
    assert set(pairs["text"].to_pylist()) == {"A short line.", "Another line."}
    assert "1 of 3 texts are too long" in caplog.text
    with pytest.raises(UserError, match="codes.too_long=skip"):
        generate(corpus, tortoise, source(), tmp_path / "codes", 0, 0)
