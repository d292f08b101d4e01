"""What cannot become a pair is left out and listed, or stops the run."""

import json
import shutil

import pytest
import soundfile

from clvp_train.corpus import ManifestCorpus
from clvp_train.errors import UserError
from clvp_train.pairs import ARCodes, DVAECodes, generate, read_manifest, read_pairs
from clvp_train.pairs.bad_rows import FEW, BadRows
from clvp_train.tortoise import Candidate, FrozenTortoise
from tests.unit.pairs.conftest import DATA, VOICES

LONG = "far too long a text " * 30


def ar(**settings):
    return ARCodes(VOICES, **{"num_candidates": 1, "shard_size": 2} | settings)


def skipped_in(folder):
    return [json.loads(line) for line in open(f"{folder}/skipped.jsonl")]


@pytest.fixture
def mute_digits():
    """A Tortoise whose tokenizer gives nothing for a text of digits alone."""
    tortoise = FrozenTortoise.from_pretrained(DATA / "tortoise", sampling={"max_codes": 4})
    tokenizer = tortoise.tokenizer
    tortoise.tokenizer = lambda text: {"input_ids": [] if text.isdigit() else tokenizer(text)["input_ids"]}
    tortoise.tokenizer.save_pretrained = tokenizer.save_pretrained
    return tortoise


def test_texts_that_cannot_be_spoken_are_left_out_and_listed(mute_digits, write_corpus, tmp_path, caplog):
    corpus = write_corpus(["A short line.", LONG, "12", LONG + "it is", "Another line."])
    folder = generate(corpus, mute_digits, ar(), folder=tmp_path / "pairs", test_percent=0, val_percent=0)
    assert read_pairs(folder)["text"].to_pylist() == ["A short line.", "Another line."]
    found = [(entry["id"], entry["kind"], entry["shard"]) for entry in skipped_in(folder)]
    assert found == [("000002", "text too long", 0), ("000003", "no tokens", 1), ("000004", "text too long", 1)]
    assert "gives no tokens" in skipped_in(folder)[1]["reason"]
    assert "skipped utterance 000002: text 'far too long" in caplog.text
    manifest = read_manifest(folder)
    assert manifest.report["skipped"] == {"text too long": 2, "no tokens": 1}
    assert [shard.rows for shard in manifest.shards] == [1, 0, 1], "a shard may be empty"


@pytest.mark.parametrize(
    ("text", "message"), [(LONG, "text 'far too long .*split it"), ("12", "gives no tokens: write")]
)
def test_with_error_such_a_text_stops_before_any_work(mute_digits, write_corpus, tmp_path, text, message):
    corpus = write_corpus(["fine", "fine too", text])
    with pytest.raises(UserError, match=f"utterance 000003: .*{message}.*, or set codes.bad_rows=skip"):
        generate(corpus, mute_digits, ar(bad_rows="error"), folder=tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


def test_if_all_rows_are_bad_the_first_reason_is_told(tortoise, write_corpus, tmp_path):
    with pytest.raises(UserError, match="no pair could be made of corpus.txt, all .*utterance 000001: text 'far"):
        generate(write_corpus([LONG, LONG]), tortoise, ar(), folder=tmp_path / "pairs")
    assert not read_manifest(tmp_path / "pairs").complete


def test_a_candidate_without_a_code_is_left_out(tortoise, write_corpus, tmp_path, monkeypatch):
    """The nano AR never stops at once, so its answer is put in."""
    candidates = tortoise.candidates

    def first_is_empty(*arguments, **settings):
        drawn = candidates(*arguments, **settings)
        return [[Candidate((), True, -1.0)], *drawn[1:]]

    monkeypatch.setattr(tortoise, "candidates", first_is_empty)
    folder = generate(
        write_corpus(["one"]), tortoise, ar(num_candidates=3, num_eval_candidates=3), folder=tmp_path / "p"
    )
    assert read_pairs(folder)["candidate"].to_pylist() == [1, 2]
    (entry,) = skipped_in(folder)
    assert entry["kind"] == "no codes" and "candidate 0" in entry["reason"]
    with pytest.raises(UserError, match="utterance 000001: candidate 0 stopped before its first code"):
        generate(write_corpus(["one"]), tortoise, ar(bad_rows="error"), folder=tmp_path / "q")


@pytest.fixture
def recordings(write_recordings, tmp_path):
    """Six recordings of two speakers, of which the second holds no sound, the third is too short."""
    path = write_recordings(["a", "b", "a", "b", "a", "b"])
    (tmp_path / "1.wav").write_text("no sound")
    soundfile.write(tmp_path / "2.wav", [0.1] * 100, 22_050)
    return ManifestCorpus(str(path))


def test_recordings_that_cannot_be_read_are_left_out_and_listed(tortoise, recordings, tmp_path):
    folder = generate(recordings, tortoise, DVAECodes(shard_size=2), folder=tmp_path / "pairs")
    assert read_pairs(folder)["id"].to_pylist() == ["0.wav", "3.wav", "4.wav", "5.wav"]
    found = {entry["id"]: entry for entry in skipped_in(folder)}
    assert {entry["kind"] for entry in found.values()} == {"bad audio"}
    assert "1.wav cannot be read" in found["1.wav"]["reason"] and "too little" in found["2.wav"]["reason"]


def test_with_error_such_a_recording_stops_and_finished_shards_stay(tortoise, recordings, tmp_path):
    folder = tmp_path / "pairs"
    with pytest.raises(UserError, match="utterance 2.wav: .*too little.*or set codes.bad_rows=skip"):
        (tmp_path / "1.wav").write_bytes((tmp_path / "0.wav").read_bytes())
        generate(recordings, tortoise, DVAECodes(shard_size=2, bad_rows="error"), folder=folder)
    (first,) = folder.glob("*.parquet")
    time = first.stat().st_mtime_ns
    generate(recordings, tortoise, DVAECodes(shard_size=2), folder=folder)
    assert first.stat().st_mtime_ns == time, "skip is no other setting of the pairs"
    assert len(read_pairs(folder)) == 5


def test_a_speaker_speaks_through_the_longest_clips_that_can_be_read(tortoise, recordings, tmp_path, caplog):
    """Of speaker b the longest is damaged too, and of a the too short one is the longest file there is."""
    (tmp_path / "5.wav").write_bytes(b"no sound" * 9999)
    (tmp_path / "2.wav").write_bytes(b"no sound" * 9999)
    source = ARCodes("corpus", num_candidates=1, clips_per_voice=1)
    folder = generate(recordings, tortoise, source, folder=tmp_path / "pairs")
    rows = read_pairs(folder).to_pylist()
    assert [row["voice"] for row in rows] == ["a", "b"] * 3 and "no clip of voice b" in caplog.text
    without = tmp_path / "without"
    without.mkdir()
    lines = (tmp_path / "manifest.csv").read_text().splitlines()
    (without / "manifest.csv").write_text("\n".join(lines))
    for number in range(6):
        readable = number if number in (3, 4) else {0: 4, 1: 3, 2: 4, 5: 3}[number]
        shutil.copy(tmp_path / f"{readable}.wav", without / f"{number}.wav")
    whole = generate(ManifestCorpus(str(without / "manifest.csv")), tortoise, source, folder=tmp_path / "whole")
    assert [row["speech_ids"] for row in rows] == read_pairs(whole)["speech_ids"].to_pylist()


def test_a_speaker_without_a_readable_clip_is_left_out(tortoise, recordings, tmp_path):
    for number in (1, 3, 5):
        (tmp_path / f"{number}.wav").write_text("no sound")
    folder = generate(recordings, tortoise, ARCodes("corpus", num_candidates=1), folder=tmp_path / "pairs")
    assert set(read_pairs(folder)["voice"].to_pylist()) == {"a"}
    assert [(entry["id"], entry["kind"]) for entry in skipped_in(folder)] == [
        (f"{number}.wav", "no voice") for number in (1, 3, 5)
    ]
    with pytest.raises(UserError, match="utterance 1.wav: no recording of speaker b can be read"):
        generate(recordings, tortoise, ARCodes("corpus", bad_rows="error"), folder=tmp_path / "other")


def test_the_first_few_are_told_in_full_and_the_rest_counted(caplog):
    bad = BadRows("skip")
    for number in range(2 * FEW):
        bad.add(str(number), "bad audio", "broken")
    assert caplog.text.count("skipped utterance") == FEW and "counted only" in caplog.text
    assert len(bad.take()) == 2 * FEW and bad.take() == []


def test_an_unknown_policy_is_named():
    with pytest.raises(UserError, match="codes.bad_rows=ignore: choose one of skip, error"):
        ar(bad_rows="ignore")
