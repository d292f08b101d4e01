import shutil
from pathlib import Path

import datasets
import pytest
import torch

from clvp_train.corpus import Hub
from clvp_train.errors import UserError
from clvp_train.pairs import ARCodes, generate, read_pairs
from clvp_train.pairs.sources import BadRows
from clvp_train.pairs.voices import SPARE_CLIPS, CorpusVoices, folder_voices
from clvp_train.tortoise.audio import load_audio
from tests.unit.pairs.conftest import DATA


def voices_of(corpus, tortoise, clips_per_voice):
    voices = CorpusVoices(clips_per_voice)
    for number, utterance in corpus.stream():
        voices.inspect(number, utterance)
    return voices.latents(tortoise, corpus, BadRows("skip"))


def test_each_text_in_the_voice_of_its_speaker(tortoise, write_recordings, tmp_path):
    corpus = write_recordings(["a", "b", "", "b", "", "a"])
    source = ARCodes("corpus", num_candidates=3, num_eval_candidates=3)
    rows = read_pairs(generate(corpus, tortoise, source, folder=tmp_path / "pairs")).to_pylist()
    voices = ["a", "b", "unknown", "b", "unknown", "a"]
    assert [row["voice"] for row in rows] == [voice for voice in voices for _ in range(3)]


@pytest.mark.parametrize("clips_per_voice", [1, 2, 9])
def test_voice_is_the_mean_of_the_longest_clips(tortoise, write_recordings, tmp_path, clips_per_voice):
    voices = voices_of(write_recordings(["a", "b", "a", "a", "b"]), tortoise, clips_per_voice)
    for speaker, numbers in (("a", [3, 2, 0]), ("b", [4, 1])):
        clips = [load_audio(tmp_path / f"{number}.wav") for number in numbers[:clips_per_voice]]
        torch.testing.assert_close(voices[speaker], tortoise.conditioning_latent(clips), rtol=1e-4, atol=1e-5)


def test_only_the_longest_of_many_clips_are_kept(tortoise, write_recordings, tmp_path):
    count = SPARE_CLIPS + 5
    corpus = write_recordings(["a"] * count)
    longest = tortoise.conditioning_latent([load_audio(tmp_path / f"{count - 1}.wav")])
    assert voices_of(corpus, tortoise, 1)["a"].equal(longest)


def test_clips_in_bytes_equal_those_in_files(tortoise, write_recordings, tmp_path):
    corpus = write_recordings(["a", "b", "a"])
    rows = [
        {"audio": {"bytes": Path(item.audio).read_bytes(), "path": None}, "text": item.text, "speaker": item.speaker}
        for item in corpus
    ]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "hub"))
    in_bytes = voices_of(Hub(str(tmp_path / "hub"), speaker_column="speaker"), tortoise, 2)
    in_files = voices_of(corpus, tortoise, 2)
    assert in_bytes.keys() == in_files.keys() and all(in_bytes[name].equal(in_files[name]) for name in in_bytes)


@pytest.mark.parametrize(
    ("voices", "message"),
    [
        ("corpus", "utterance 000001: no audio.*codes.voices=corpus.*folder"),
        ("nowhere", "codes.voices=.*nowhere: not a directory"),
        ("empty", "codes.voices=.*empty: contains no voice"),
        ("damaged", "joe/3.wav"),  # also the voices of other texts depend on this one
    ],
)
def test_unusable_voices(tortoise, write_corpus, tmp_path, voices, message):
    (tmp_path / "empty" / "voice").mkdir(parents=True)
    shutil.copytree(DATA / "voices", tmp_path / "damaged")
    (tmp_path / "damaged/joe/3.wav").write_text("not audio")
    with pytest.raises(UserError, match=message):
        folder = voices if voices == "corpus" else str(tmp_path / voices)
        generate(write_corpus(), tortoise, ARCodes(folder), folder=tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists(), "checked before anything is written"


def test_voice_without_clips_is_ignored(tortoise, write_corpus, tmp_path, caplog):
    shutil.copytree(DATA / "voices/joe", tmp_path / "voices/joe")
    (tmp_path / "voices/sam").mkdir()
    (tmp_path / "voices/sam/notes.txt").write_text("none yet")
    source = ARCodes(str(tmp_path / "voices"), num_candidates=1)
    folder = generate(write_corpus(3), tortoise, source, folder=tmp_path / "pairs")
    assert f"{tmp_path / 'voices/sam'}: no wav" in caplog.text
    assert set(read_pairs(folder)["voice"].to_pylist()) == {"joe"}


def test_clips_of_a_mac_and_of_any_suffix(tmp_path, caplog):
    """What Finder leaves is no clip, and a suffix says nothing about the content."""
    clip = next((DATA / "voices" / "slt").iterdir())
    for name in ("anna/1.WAV", "anna/2.opus", "ben/1.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(clip, tmp_path / name)
    for name in (".DS_Store", "anna/.DS_Store", "anna/._1.wav", "__MACOSX/x.wav", "ben/2.m4a", "carl/1.m4a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\26\7")
    voices = folder_voices(tmp_path)
    names = {voice: [path.name for path in paths] for voice, paths in voices.items()}
    assert names == {"anna": ["1.WAV", "2.opus"], "ben": ["1.mp3"]}
    assert all(load_audio(path).equal(load_audio(clip)) for paths in voices.values() for path in paths)
    assert "ben/2.m4a: not a format of libsndfile" in caplog.text and "carl: no wav" in caplog.text
