"""Manifests as CSV, TSV, JSONL and Parquet."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clvp_train.corpus import ManifestCorpus, Utterance
from tests.unit.corpus.conftest import fails

ROWS, BYTES = 640, 100_000


@pytest.fixture
def write(tmp_path, write_audio):
    """Writes wavs/a.wav, wavs/b.wav and a manifest next to `wavs`, and returns its path."""
    write_audio(tmp_path / "wavs/a.wav")
    write_audio(tmp_path / "wavs/b.wav")

    def write(name: str, content: str | bytes | pa.Table | list) -> str:
        path = tmp_path / name
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        elif isinstance(content, list):
            path.write_text("".join(json.dumps(row) + "\n" for row in content))
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


def fails_at(path: str, *words: str) -> None:
    fails(ManifestCorpus(path), *words)


def test_all_formats_are_equivalent(write, tmp_path):
    cells = {"audio": ["wavs/a.wav", "wavs/b.wav"], "text": ["Größe, 大き", "two  words"], "speaker": ["x", None]}
    rows = pa.table(cells).to_pylist()
    paths = [
        write("m.csv", '\ufeffaudio,text,speaker\r\nwavs/a.wav,"Größe, 大き",x\r\n\r\nwavs/b.wav,two  words,\r\n'),
        write("m.tsv", "speaker\ttext\taudio\nx\tGröße, 大き\twavs/a.wav\n\ttwo  words\twavs/b.wav\n"),
        write("m.jsonl", rows),
        write("m.parquet", pa.table(cells)),
        write("struct.jsonl", [row | {"audio": {"bytes": None, "path": row["audio"]}} for row in rows]),
        write("struct.parquet", pa.table(cells | {"audio": [{"bytes": None, "path": p} for p in cells["audio"]]})),
    ]
    for path in paths:
        assert list(ManifestCorpus(path)) == [
            Utterance("wavs/a.wav", "Größe, 大き", str(tmp_path / "wavs/a.wav"), "x"),
            Utterance("wavs/b.wav", "two words", str(tmp_path / "wavs/b.wav"), None),
        ], path


def test_id_column_and_double_audio(write):
    fails_at(write("m.csv", "audio,text\nwavs/a.wav,one\nwavs/a.wav,two\n"), "line 3", "duplicate id 'wavs/a.wav'")
    path = write("m.csv", "audio,text,id\nwavs/a.wav,one,7\nwavs/a.wav,two,8\n")
    assert [u.id for u in ManifestCorpus(path)] == ["7", "8"]


def test_ids_hold_no_absolute_path(write, tmp_path, tmp_path_factory, write_audio):
    elsewhere = write_audio(tmp_path_factory.mktemp("elsewhere") / "c.wav")
    path = write("m.csv", f"audio,text\n{tmp_path}/wavs/a.wav,one\n{elsewhere},two\n")
    assert [u.id for u in ManifestCorpus(path)] == ["wavs/a.wav", "row-000002"]


@pytest.mark.parametrize(
    "kind", [pa.struct({"bytes": pa.binary(), "path": pa.string()}), pa.binary(), pa.large_binary()]
)
def test_parquet_bytes(write, wav_bytes, kind):
    audio = [{"bytes": wav_bytes, "path": "a.wav"}] * 2 if pa.types.is_struct(kind) else [wav_bytes] * 2
    table = pa.table({"audio": pa.array(audio, kind), "text": ["one", "two"], "speaker": [4, 5], "more": [0, 0]})
    assert list(ManifestCorpus(write("m.parquet", table))) == [
        Utterance("row-000001", "one", wav_bytes, "4"),
        Utterance("row-000002", "two", wav_bytes, "5"),
    ]


def test_tsv_quotes_are_characters(write):
    path = write("m.tsv", 'audio\ttext\nwavs/a.wav\t"Open quote\nwavs/b.wav\ttwo\n')
    assert [u.text for u in ManifestCorpus(path)] == ['"Open quote', "two"]


def test_csv_text_over_lines(write):
    path = write("m.csv", 'audio,text\nwavs/a.wav,"one\r\ntwo"\nwavs/b.wav,\n')
    fails_at(path, "m.csv, line 4", "transcript is empty")


def content(suffix, cells):
    """What `write` takes for a table of one of the formats."""
    if suffix == "parquet":
        return pa.table(cells)
    if suffix == "jsonl":
        return pa.table(cells).to_pylist()
    separator = "," if suffix == "csv" else "\t"
    return "".join(f"{separator.join(row)}\n" for row in (cells, *zip(*cells.values())))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_missing_column(write, suffix):
    cells = {"audio": ["wavs/a.wav"], "sentence": ["one"]}
    fails_at(
        write(f"m.{suffix}", content(suffix, cells)),
        f"m.{suffix}",
        "no column 'text'",
        "columns: audio, sentence",
        "Rename the columns",
    )


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_missing_audio_file(write, suffix):
    cells = {"audio": ["wavs/a.wav", "wavs/none.wav"], "text": ["one", "two"]}
    row = {"csv": "line 3", "tsv": "line 3", "jsonl": "line 2", "parquet": "row 2"}[suffix]
    fails_at(write(f"m.{suffix}", content(suffix, cells)), f"m.{suffix}, {row}", "wavs/none.wav does not exist")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.xlsx", "x", ("m.xlsx", "unknown suffix '.xlsx'", "Use .csv, .tsv, .jsonl or .parquet")),
        ("m.csv", "", ("m.csv: the corpus has no utterances",)),
        ("m.csv", "audio,text\n", ("m.csv: the corpus has no utterances",)),
        ("m.csv", "audio,text\nwavs/a.wav,one, two\n", ("m.csv, line 2", "3 fields", "header has 2", "quotes")),
        (
            "m.csv",
            'audio,text\nwavs/a.wav,"one\nwavs/b.wav,two\n',
            ("m.csv, line 2", "malformed", "Correct the quotes"),
        ),
        ("m.csv", "audio,text\n,one\n", ("m.csv, line 2", "no audio", "Add its path")),
        ("m.csv", "audio,text\n" + "x" * 5000 + ",one\n", ("m.csv, line 2", "does not exist")),
        ("m.csv", b"audio,text\nwavs/a.wav,caf\xe9\n", ("m.csv, line 2", "byte 25 is not UTF-8")),
        (
            "m.jsonl",
            '{"audio": "wavs/a.wav", "text": "one"}\n{"audio"\n',
            ("line 2", "malformed JSON", "one JSON object"),
        ),
        ("m.jsonl", "[1]\n", ("line 1", "not a JSON object")),
        ("m.jsonl", "[" * 100_000, ("line 1", "malformed JSON")),
        ("m.jsonl", [{"audio": "wavs/a.wav", "text": None}], ("line 1", "transcript is empty")),
        ("m.jsonl", [{"audio": "wavs/a.wav", "text": 5}], ("line 1", "transcript is of type int")),
        ("m.jsonl", [{"audio": "wavs/a.wav", "text": "\ud800"}], ("line 1", "transcript", "not valid Unicode")),
        ("m.jsonl", [{"audio": {"bytes": "x"}, "text": "one"}], ("line 1", "audio bytes in JSON", "Parquet")),
        ("m.jsonl", [{"audio": [0.5], "text": "one"}], ("line 1", "the audio is of type list", "Use a path")),
        ("m.jsonl", [{"audio": {"path": None}, "text": "one"}], ("line 1", "no audio")),
        ("m.parquet", b"PAR1 not", ("m.parquet", "cannot be read as Parquet")),
        ("m.parquet", pa.table({"audio": [None], "text": ["x"]}), ("m.parquet, row 1", "no audio")),
        ("m.parquet", pa.table({"audio": [[0.5]], "text": ["x"]}), ("row 1", "the audio is of type list")),
    ],
)
def test_bad_manifest(write, name, content, words):
    fails_at(write(name, content), *words)


def test_missing_manifest(tmp_path):
    fails_at(str(tmp_path / "none.csv"), "none.csv: does not exist", "Set corpus.path")


@pytest.mark.parametrize("rows_a_group", [ROWS, 64], ids=["one row group", "ten row groups"])
def test_parquet_is_read_as_a_stream(tmp_path, rows_a_group):
    """A page or a row group is in memory, never the entire file."""
    table = pa.table({"audio": [os.urandom(BYTES) for _ in range(ROWS)], "text": [f"text {n}" for n in range(ROWS)]})
    pages = {"write_batch_size": 64, "use_dictionary": False}  # 64 rows each, not the default 1024
    pq.write_table(table, tmp_path / "corpus.parquet", row_group_size=rows_a_group, **pages)
    del table
    before, most = pa.total_allocated_bytes(), 0
    for utterance in ManifestCorpus(str(tmp_path / "corpus.parquet")):
        assert len(utterance.audio) == BYTES
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < ROWS * BYTES / 2
