import shutil

import pytest

from clvp_train.errors import UserError
from clvp_train.pairs import DVAECodes, generate, read_manifest, read_pairs
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio
from tests.unit.pairs.conftest import DATA


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_codes_equal_those_of_each_recording_alone(tortoise, write_recordings, tmp_path, batch_size):
    corpus = write_recordings(["a", "b", ""] * 3, order=[4, 5, 6, 7, 8, 0, 1, 2, 3])
    codes = DVAECodes(batch_size=batch_size, shard_size=7)
    rows = read_pairs(generate(corpus, tortoise, codes, folder=tmp_path / "pairs")).to_pylist()
    assert len(rows) == 9
    for row, utterance in zip(rows, corpus):
        assert row["speech_ids"] == tortoise.speech_codes([load_audio(utterance.audio)])[0]
        assert row["voice"] == (utterance.speaker or "unknown") and row["id"] == utterance.id
        assert row["input_ids"] == tortoise.tokenizer(utterance.text)["input_ids"]
        assert (row["candidate"], row["finished"], row["seed"], row["log_probability"]) == (0, True, None, None)
    assert read_manifest(tmp_path / "pairs").source == "dvae"


def test_batches_have_similar_lengths(tortoise, write_recordings, tmp_path, monkeypatch):
    corpus = write_recordings([""] * 6, order=[5, 0, 3, 1, 4, 2])
    batches, encode = [], tortoise.speech_codes

    def recorded(clips):
        batches.append([len(clip) for clip in clips])
        return encode(clips)

    monkeypatch.setattr(tortoise, "speech_codes", recorded)
    generate(corpus, tortoise, DVAECodes(batch_size=2), folder=tmp_path / "pairs")
    lengths = [length for batch in batches for length in batch]
    assert len(batches) == 3 and lengths == sorted(lengths) and len(set(lengths)) == 6


def test_other_recordings_give_another_folder(tortoise, write_recordings, tmp_path):
    corpus = write_recordings(["a", "b"])
    first = generate(corpus, tortoise, DVAECodes(), cache_dir=tmp_path / "codes")
    shutil.copy(tmp_path / "1.wav", tmp_path / "0.wav")
    assert generate(corpus, tortoise, DVAECodes(), cache_dir=tmp_path / "codes") != first


@pytest.mark.parametrize(("max_codes", "kept"), [(None, 4), (500, 4), (7, 3), (6, 2), (5, 2), (4, 1)])
def test_long_recordings_are_skipped_and_listed(tortoise, write_recordings, tmp_path, max_codes, kept):
    """The recordings have 4, 5, 7, and 8 codes."""
    corpus = write_recordings([""] * 4)
    folder = generate(corpus, tortoise, DVAECodes(max_codes=max_codes), folder=tmp_path / "pairs")
    lengths = [len(codes) for codes in read_pairs(folder)["speech_ids"].to_pylist()]
    assert len(lengths) == kept and max(lengths) <= (max_codes or 99)
    assert read_manifest(folder).report["skipped"] == ({} if kept == 4 else {"recording too long": 4 - kept})
    assert ("codes.max_codes" in read_manifest(folder).settings) == (max_codes != 500), "as earlier versions wrote it"


def test_missing_audio_or_dvae(tortoise, write_corpus, write_recordings, tmp_path):
    shutil.copytree(DATA / "tortoise", tmp_path / "bare", ignore=shutil.ignore_patterns("dvae", "SHA256SUMS"))
    bare = FrozenTortoise.from_pretrained(tmp_path / "bare")
    for corpus, used, message in (
        (write_corpus(), tortoise, "utterance 000001: no audio.*codes=ar"),
        (write_recordings(["a"]), bare, "no DVAE"),
    ):
        with pytest.raises(UserError, match=message):
            generate(corpus, used, DVAECodes(), folder=tmp_path / "pairs")
        assert not (tmp_path / "pairs").exists(), "checked before anything is written"
