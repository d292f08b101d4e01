"""Whose voice says a text."""

import shutil
from pathlib import Path

import datasets
import pytest
import torch

from clvp_train.corpus import Hub, ManifestCorpus
from clvp_train.errors import UserError
from clvp_train.pairs import ARCodes, generate, read_pairs
from clvp_train.pairs.bad_rows import BadRows
from clvp_train.pairs.voices import SPARE_CLIPS, CorpusVoices
from clvp_train.tortoise.audio import load_audio
from tests.unit.pairs.conftest import DATA


def voices_of(corpus, tortoise, clips_per_voice):
    voices = CorpusVoices(clips_per_voice)
    for number, utterance in corpus.stream():
        voices.look_at(number, utterance)
    return voices.latents(tortoise, corpus, BadRows("skip"))


def test_each_text_is_said_by_its_own_speaker(tortoise, write_recordings, tmp_path):
    corpus = ManifestCorpus(str(write_recordings(["a", "b", "", "b", "", "a"])))
    source = ARCodes("corpus", num_candidates=3, num_eval_candidates=3)
    rows = read_pairs(generate(corpus, tortoise, source, folder=tmp_path / "pairs")).to_pylist()
    assert [row["voice"] for row in rows] == [
        voice for voice in ["a", "b", "unknown", "b", "unknown", "a"] for _ in range(3)
    ]


@pytest.mark.parametrize("clips_per_voice", [1, 2, 9])
def test_a_voice_is_the_mean_over_a_speaker_s_longest_clips(tortoise, write_recordings, tmp_path, clips_per_voice):
    corpus = ManifestCorpus(str(write_recordings(["a", "b", "a", "a", "b"])))  # each longer than the one before
    found = voices_of(corpus, tortoise, clips_per_voice)
    for speaker, numbers in (("a", [3, 2, 0]), ("b", [4, 1])):
        clips = [load_audio(tmp_path / f"{number}.wav") for number in numbers[:clips_per_voice]]
        torch.testing.assert_close(found[speaker], tortoise.conditioning_latent(clips), rtol=1e-4, atol=1e-5)


def test_of_many_clips_the_longest_are_kept(tortoise, write_recordings, tmp_path):
    count = SPARE_CLIPS + 5
    corpus = ManifestCorpus(str(write_recordings(["a"] * count)))
    longest = tortoise.conditioning_latent([load_audio(tmp_path / f"{count - 1}.wav")])
    assert voices_of(corpus, tortoise, 1)["a"].equal(longest)


def test_clips_in_bytes_are_heard_as_those_in_files(tortoise, write_recordings, tmp_path):
    corpus = ManifestCorpus(str(write_recordings(["a", "b", "a"])))
    rows = [
        {"audio": {"bytes": Path(one.audio).read_bytes(), "path": None}, "text": one.text, "speaker": one.speaker}
        for one in corpus
    ]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "hub"))
    packed = Hub(str(tmp_path / "hub"), speaker_column="speaker")
    ours, theirs = voices_of(packed, tortoise, 2), voices_of(corpus, tortoise, 2)
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)


def refused(message, corpus, tortoise, voices, tmp_path):
    with pytest.raises(UserError, match=message):
        generate(corpus, tortoise, ARCodes(str(voices)), folder=tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists(), "nothing is written before all is checked"


def test_a_text_corpus_has_no_voices_of_its_own(tortoise, write_corpus, tmp_path):
    message = "utterance 000001 has no audio, so codes.voices=corpus .*give a folder"
    refused(message, write_corpus(), tortoise, "corpus", tmp_path)


def test_voices_that_are_missing_or_empty_are_named(tortoise, write_corpus, tmp_path):
    (tmp_path / "empty" / "voice").mkdir(parents=True)
    for voices, message in (("nowhere", "is no folder: give one"), ("empty", "holds no voice: make a subfolder")):
        path = tmp_path / voices
        refused(f"codes.voices={path} {message}", write_corpus(), tortoise, path, tmp_path)


def test_an_unreadable_clip_of_a_voice_is_named_before_any_work(tortoise, write_corpus, tmp_path):
    """Other texts' voices depend on there being this one."""
    shutil.copytree(DATA / "voices", tmp_path / "voices")
    (tmp_path / "voices/joe/3.wav").write_text("no sound")
    refused("joe/3.wav cannot be read", write_corpus(), tortoise, tmp_path / "voices", tmp_path)


def test_a_voice_without_a_clip_is_told(tortoise, write_corpus, tmp_path, caplog):
    shutil.copytree(DATA / "voices/joe", tmp_path / "voices/joe")
    (tmp_path / "voices/sam").mkdir()
    (tmp_path / "voices/sam/notes.txt").write_text("none yet")
    source = ARCodes(str(tmp_path / "voices"), num_candidates=1)
    folder = generate(write_corpus(3), tortoise, source, folder=tmp_path / "pairs")
    assert f"{tmp_path / 'voices/sam'} holds no wav, flac, ogg or mp3 file" in caplog.text
    assert set(read_pairs(folder)["voice"].to_pylist()) == {"joe"}
