"""Rows that cannot become pairs are skipped and listed, or stop the run."""

import json
import shutil

import pytest
import soundfile

from clvp_train.corpus import ManifestCorpus
from clvp_train.errors import UserError
from clvp_train.pairs import ARCodes, DVAECodes, generate, read_manifest, read_pairs
from clvp_train.pairs.sources import MAX_WARNINGS, BadRows
from clvp_train.tortoise import Candidate, FrozenTortoise
from tests.unit.pairs.conftest import DATA, VOICES

LONG = "far too long a text " * 30


def ar(**settings):
    return ARCodes(VOICES, **{"num_candidates": 1, "shard_size": 2} | settings)


def skipped_in(folder):
    return [json.loads(line) for line in open(f"{folder}/skipped.jsonl")]


@pytest.fixture
def without_digits():
    """A Tortoise whose tokenizer returns no tokens for a text of digits."""
    tortoise = FrozenTortoise.from_pretrained(DATA / "tortoise", sampling={"max_codes": 4})
    tokenizer = tortoise.tokenizer
    tortoise.tokenizer = lambda text: {"input_ids": [] if text.isdigit() else tokenizer(text)["input_ids"]}
    tortoise.tokenizer.save_pretrained, tortoise.tokenizer.unk_token_id = tokenizer.save_pretrained, 1
    return tortoise


def test_texts_are_skipped_and_listed(without_digits, write_corpus, tmp_path, caplog):
    corpus = write_corpus(["A short line.", LONG, "12", LONG + "it is", "Another line."])
    folder = generate(corpus, without_digits, ar(), folder=tmp_path / "pairs", test_percent=0, val_percent=0)
    assert read_pairs(folder)["text"].to_pylist() == ["A short line.", "Another line."]
    skipped = [(entry["id"], entry["kind"], entry["shard"]) for entry in skipped_in(folder)]
    assert skipped == [("000002", "text too long", 0), ("000003", "no tokens", 1), ("000004", "text too long", 1)]
    assert "no tokens" in skipped_in(folder)[1]["reason"]
    assert "skipped utterance 000002: text 'far too long" in caplog.text
    manifest = read_manifest(folder)
    assert manifest.report["skipped"] == {"text too long": 2, "no tokens": 1}
    assert [shard.rows for shard in manifest.shards] == [1, 1] and manifest.num_shards == 3, "one is empty"


def test_texts_whose_letters_vanish_are_skipped_and_listed(tortoise, write_corpus, tmp_path):
    lost = [
        "你好，世界！",
        "Мы ждали 5 часов, но он не пришёл.",
        "「今日は」 OK",
        "안녕하세요. 2024",
        "Γεια σου; OK",
        "مرحبا!",
    ]
    kept = ["Ça va, señor Łódź?", "He said “привет” to the others.", "7, 8, 9!"]
    folder = generate(write_corpus([*lost, *kept]), tortoise, ar(), folder=tmp_path / "pairs")
    assert read_pairs(folder)["text"].to_pylist() == kept
    assert read_manifest(folder).report["skipped"] == {"unknown letters": len(lost)}
    assert "train_tokenizer" in skipped_in(folder)[1]["reason"]
    with pytest.raises(UserError, match="utterance 000001: text '你好.*train_tokenizer"):
        generate(write_corpus(lost), tortoise, ar(bad_rows="error"), folder=tmp_path / "other")


@pytest.mark.parametrize("text", [LONG, "12"])
def test_policy_error_stops_at_a_text_before_any_work(without_digits, write_corpus, tmp_path, text):
    with pytest.raises(UserError, match=f"utterance 000003: text '{text[:12]}.*codes.bad_rows=skip"):
        generate(write_corpus(["fine", "also", text]), without_digits, ar(bad_rows="error"), folder=tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


def test_all_rows_skipped(tortoise, write_corpus, tmp_path):
    with pytest.raises(UserError, match="corpus.txt: no pairs.*utterance 000001: text 'far"):
        generate(write_corpus([LONG, LONG]), tortoise, ar(), folder=tmp_path / "pairs")
    assert not read_manifest(tmp_path / "pairs").complete


def test_candidate_without_codes(tortoise, write_corpus, tmp_path, monkeypatch):
    """The bundled AR never stops at once, so the empty candidate is patched in."""
    candidates = tortoise.candidates

    def first_is_empty(*arguments, **settings):
        return [[Candidate((), True, -1.0)], *candidates(*arguments, **settings)[1:]]

    monkeypatch.setattr(tortoise, "candidates", first_is_empty)
    corpus, three = write_corpus(["one"]), {"num_candidates": 3, "num_eval_candidates": 3}
    folder = generate(corpus, tortoise, ar(**three), folder=tmp_path / "p")
    assert read_pairs(folder)["candidate"].to_pylist() == [1, 2]
    (entry,) = skipped_in(folder)
    assert entry["kind"] == "no codes" and "candidate 0" in entry["reason"]
    with pytest.raises(UserError, match="utterance 000001: candidate 0 has no codes"):
        generate(corpus, tortoise, ar(bad_rows="error"), folder=tmp_path / "q")


@pytest.fixture
def recordings(write_recordings, tmp_path):
    """Six recordings of two speakers: the second is not audio, the third is too short."""
    corpus = write_recordings(["a", "b", "a", "b", "a", "b"])
    (tmp_path / "1.wav").write_text("not audio")
    soundfile.write(tmp_path / "2.wav", [0.1] * 100, 22_050)
    return corpus


def test_recordings_are_skipped_and_listed(tortoise, recordings, tmp_path):
    folder = generate(recordings, tortoise, DVAECodes(shard_size=2), folder=tmp_path / "pairs")
    assert read_pairs(folder)["id"].to_pylist() == ["0.wav", "3.wav", "4.wav", "5.wav"]
    entries = {entry["id"]: entry for entry in skipped_in(folder)}
    assert set(entries) == {"1.wav", "2.wav"} and {entry["kind"] for entry in entries.values()} == {"bad audio"}
    assert "1.wav" in entries["1.wav"]["reason"] and "2.wav" in entries["2.wav"]["reason"]


def test_policy_error_keeps_finished_shards(tortoise, recordings, tmp_path):
    folder = tmp_path / "pairs"
    (tmp_path / "1.wav").write_bytes((tmp_path / "0.wav").read_bytes())
    with pytest.raises(UserError, match="utterance 2.wav: .*codes.bad_rows=skip"):
        generate(recordings, tortoise, DVAECodes(shard_size=2, bad_rows="error"), folder=folder)
    (first,) = folder.glob("*.parquet")
    time = first.stat().st_mtime_ns
    generate(recordings, tortoise, DVAECodes(shard_size=2), folder=folder)
    assert first.stat().st_mtime_ns == time, "the policy does not change the fingerprint"
    assert len(read_pairs(folder)) == 5


def test_voice_uses_the_longest_readable_clips(tortoise, recordings, tmp_path, caplog):
    """The largest file of each speaker is damaged, and another one of each."""
    for damaged in ("2.wav", "5.wav"):
        (tmp_path / damaged).write_bytes(b"not audio" * 9999)
    source = ARCodes("corpus", num_candidates=1, clips_per_voice=1)
    rows = read_pairs(generate(recordings, tortoise, source, folder=tmp_path / "pairs")).to_pylist()
    assert [row["voice"] for row in rows] == ["a", "b"] * 3 and "no clip of voice b" in caplog.text
    (tmp_path / "intact").mkdir()
    shutil.copy(tmp_path / "manifest.csv", tmp_path / "intact")
    for number, readable in enumerate((4, 3, 4, 3, 4, 3)):
        shutil.copy(tmp_path / f"{readable}.wav", tmp_path / f"intact/{number}.wav")
    intact = generate(
        ManifestCorpus(str(tmp_path / "intact/manifest.csv")), tortoise, source, folder=tmp_path / "other"
    )
    assert [row["speech_ids"] for row in rows] == read_pairs(intact)["speech_ids"].to_pylist()


def test_speaker_without_readable_clips(tortoise, recordings, tmp_path):
    for number in (1, 3, 5):
        (tmp_path / f"{number}.wav").write_text("not audio")
    folder = generate(recordings, tortoise, ARCodes("corpus", num_candidates=1), folder=tmp_path / "pairs")
    assert set(read_pairs(folder)["voice"].to_pylist()) == {"a"}
    skipped = [(entry["id"], entry["kind"]) for entry in skipped_in(folder)]
    assert skipped == [(f"{number}.wav", "no voice") for number in (1, 3, 5)]
    with pytest.raises(UserError, match="utterance 1.wav: no recording of speaker b can be read"):
        generate(recordings, tortoise, ARCodes("corpus", bad_rows="error"), folder=tmp_path / "other")


def test_only_the_first_warnings_are_logged(caplog):
    bad = BadRows("skip")
    for number in range(2 * MAX_WARNINGS):
        bad.add(str(number), "bad audio", "broken")
    assert caplog.text.count("skipped utterance") == MAX_WARNINGS and "only counted" in caplog.text
    assert len(bad.take()) == 2 * MAX_WARNINGS and bad.take() == []


def test_unknown_policy():
    with pytest.raises(UserError, match="codes.bad_rows=ignore: .*skip, error"):
        ar(bad_rows="ignore")
