"""Data sets that `datasets` reads, all local."""

import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clvp_train.corpus import Hub, Utterance
from tests.unit.corpus.conftest import fails


@pytest.fixture(autouse=True)
def local_only(monkeypatch, tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def saved(path, wav_bytes, split: str | None = None) -> str:
    cells = {
        "audio": [{"bytes": wav_bytes, "path": "a.wav"}, {"bytes": wav_bytes, "path": "b.wav"}],
        "text": ["one", "two"],
    }
    loaded = datasets.Dataset.from_dict(cells | {"who": [3, 4], "key": ["k1", "k2"]})
    loaded = loaded.cast_column("audio", datasets.Audio())
    (datasets.DatasetDict({split: loaded}) if split else loaded).save_to_disk(str(path))
    return str(path)


@pytest.mark.parametrize("split", [None, "train"])
def test_reads_saved_data_set_without_decoding(tmp_path, wav_bytes, split):
    corpus = Hub(saved(tmp_path / "d", wav_bytes, split))
    expected = [Utterance("train/000000", "one", wav_bytes), Utterance("train/000001", "two", wav_bytes)]
    assert list(corpus) == expected
    assert list(corpus) == expected


def test_columns(tmp_path, wav_bytes):
    name = saved(tmp_path / "d", wav_bytes)
    assert [(u.id, u.speaker) for u in Hub(name, speaker_column="who", id_column="key")] == [("k1", "3"), ("k2", "4")]
    assert [u.audio for u in Hub(name, audio_column=None)] == [None, None]
    fails(
        Hub(name, text_column="sentence"), name, "no column 'sentence'", "audio, text, who, key", "corpus.text_column"
    )
    fails(Hub(name, id_column="nope"), "no column 'nope'", "corpus.id_column")


def test_reads_folder_of_parquet_files(tmp_path, wav_bytes):
    for shard in range(2):
        table = pa.table({"audio": [{"bytes": wav_bytes, "path": None}], "text": [f"shard {shard}"]})
        pq.write_table(table, tmp_path / f"train-{shard:05d}-of-00002.parquet")
    assert list(Hub(str(tmp_path))) == [
        Utterance("train/000000", "shard 0", wav_bytes),
        Utterance("train/000001", "shard 1", wav_bytes),
    ]
    assert [u.id for u in Hub(str(tmp_path), split="train[1:]")] == ["train[1:]/000000"]
    fails(Hub(str(tmp_path), split="dev"), "split dev", "cannot be loaded", "corpus.split")


def test_reads_folder_of_csv_with_paths(tmp_path, write_audio):
    write_audio(tmp_path / "wavs" / "a.wav")
    (tmp_path / "train.csv").write_text("audio,text\nwavs/a.wav,one\n")
    name = str(tmp_path)
    assert list(Hub(name)) == [Utterance("train/000000", "one", str(tmp_path / "wavs/a.wav"))]
    (tmp_path / "wavs" / "a.wav").unlink()
    fails(Hub(name), "row 1", "a.wav does not exist", "Correct its path")


def test_audio_folder_without_torchcodec(tmp_path, write_audio, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    write_audio(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,transcription\na.wav,one\n")
    fails(Hub(str(tmp_path)), "torchcodec", "corpus.revision=refs/convert/parquet", "corpus=manifest")


def test_audio_folder_with_torchcodec(tmp_path, write_audio):
    pytest.importorskip("torchcodec.encoders", exc_type=ImportError)
    write_audio(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,transcription\na.wav,one\n")
    (utterance,) = Hub(str(tmp_path), text_column="transcription")
    assert (utterance.text, utterance.audio) == ("one", str(tmp_path / "a.wav"))


def test_bad_rows(tmp_path, wav_bytes):
    cells = {"audio": [{"bytes": wav_bytes, "path": None}] * 2, "text": ["one", " "], "key": ["k", "k"]}
    datasets.Dataset.from_dict(cells).save_to_disk(str(tmp_path / "d"))
    fails(Hub(str(tmp_path / "d")), "row 2", "transcript is empty")
    datasets.Dataset.from_dict(cells | {"text": ["one", "two"]}).save_to_disk(str(tmp_path / "e"))
    fails(Hub(str(tmp_path / "e"), id_column="key"), "row 2", "duplicate id 'k'")


def test_unreachable(tmp_path, wav_bytes):
    fails(Hub(str(tmp_path / "none")), "none: does not exist", "Set corpus.name")
    (tmp_path / "one.csv").write_text("x")
    fails(Hub(str(tmp_path / "one.csv")), "one.csv: not a folder", "corpus=manifest")
    fails(Hub("nobody/no-such-data-set"), "nobody/no-such-data-set", "cannot be loaded", "Check corpus.name", "network")
    fails(Hub(saved(tmp_path / "d", wav_bytes, "train"), split="dev"), "no split 'dev'", "one of train")
    (tmp_path / "empty").mkdir()
    fails(Hub(str(tmp_path / "empty")), "empty", "cannot be loaded")
