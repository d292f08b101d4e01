"""The codes of recordings themselves."""

import shutil

import pytest

from clvp_train.corpus import ManifestCorpus
from clvp_train.errors import UserError
from clvp_train.pairs import DVAECodes, generate, read_manifest, read_pairs
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio
from tests.unit.pairs.conftest import DATA


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_codes_are_those_of_each_recording_alone_in_the_corpus_s_order(
    tortoise, write_recordings, tmp_path, batch_size
):
    path = write_recordings(["a", "b", ""] * 3)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[5:], *lines[1:5]]))  # longer ones first, then shorter ones
    corpus = ManifestCorpus(str(path))
    codes = DVAECodes(batch_size=batch_size, shard_size=7)
    rows = read_pairs(generate(corpus, tortoise, codes, folder=tmp_path / "pairs")).to_pylist()
    assert len(rows) == 9
    for row, utterance in zip(rows, corpus):
        assert row["speech_ids"] == tortoise.speech_codes([load_audio(utterance.audio)])[0]
        assert row["voice"] == (utterance.speaker or "unknown") and row["id"] == utterance.id
        assert row["input_ids"] == tortoise.tokenizer(utterance.text)["input_ids"]
        assert (row["candidate"], row["finished"], row["seed"], row["log_probability"]) == (0, True, None, None)
    assert read_manifest(tmp_path / "pairs").source == "dvae"


def test_clips_of_like_length_are_encoded_side_by_side(tortoise, write_recordings, tmp_path, monkeypatch):
    path = write_recordings([""] * 6)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:1] + [lines[1 + place] for place in (5, 0, 3, 1, 4, 2)]))
    batches, encode = [], tortoise.speech_codes

    def watched(clips):
        batches.append([len(clip) for clip in clips])
        return encode(clips)

    monkeypatch.setattr(tortoise, "speech_codes", watched)
    generate(ManifestCorpus(str(path)), tortoise, DVAECodes(batch_size=2), folder=tmp_path / "pairs")
    lengths = [length for batch in batches for length in batch]
    assert len(batches) == 3 and lengths == sorted(lengths) and len(set(lengths)) == 6


def test_other_recordings_give_another_folder(tortoise, write_recordings, tmp_path):
    corpus = ManifestCorpus(str(write_recordings(["a", "b"])))
    one = generate(corpus, tortoise, DVAECodes(), cache_dir=tmp_path / "codes")
    shutil.copy(tmp_path / "1.wav", tmp_path / "0.wav")
    assert generate(corpus, tortoise, DVAECodes(), cache_dir=tmp_path / "codes") != one


def refused(message, corpus, tortoise, folder):
    with pytest.raises(UserError, match=message):
        generate(corpus, tortoise, DVAECodes(), folder=folder)
    assert not folder.exists(), "nothing is written before all is checked"


def test_a_text_corpus_has_no_recordings_to_encode(tortoise, write_corpus, tmp_path):
    refused("utterance 000001 has no audio.*codes=ar", write_corpus(), tortoise, tmp_path / "pairs")


def test_a_tortoise_without_dvae_says_so(write_recordings, tmp_path):
    shutil.copytree(DATA / "tortoise", tmp_path / "bare", ignore=shutil.ignore_patterns("dvae"))
    bare = FrozenTortoise.from_pretrained(tmp_path / "bare")
    refused(f"{tmp_path / 'bare'} has no DVAE", ManifestCorpus(str(write_recordings(["a"]))), bare, tmp_path / "pairs")
