import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clvp_train.errors import UserError
from clvp_train.pairs import StoredCodes, generate, read_manifest, read_pairs

ROWS = [
    {"text": "Second line.", "speech_ids": [7], "voice": "a", "finished": True, "log_probability": None},
    {"text": "first line", "speech_ids": [1, 2, 3], "voice": "a", "finished": False, "log_probability": -2.5},
    {"text": "First LINE!", "speech_ids": [2047, 0], "voice": None, "finished": None, "log_probability": None},
]


@pytest.fixture
def stored(tmp_path):
    def write(rows=ROWS, columns=None, types=None, metadata=None, **settings):
        table = pa.Table.from_pylist(rows, schema=types).replace_schema_metadata(metadata)
        pq.write_table(table.select(columns or table.column_names), tmp_path / "codes.parquet")
        return StoredCodes(str(tmp_path / "codes.parquet"), **settings)

    return write


@pytest.fixture
def make(tortoise, write_corpus, tmp_path):
    def pairs(source, lines=("First line.", "Nowhere stored.", "second line"), **settings):
        return generate(write_corpus(list(lines)), tortoise, source, cache_dir=tmp_path / "codes", **settings)

    return pairs


def test_all_rows_of_a_text_become_its_candidates(stored, make, tortoise):
    folder = make(stored(shard_size=2), test_percent=0, val_percent=0)
    rows = read_pairs(folder).to_pylist()
    assert [(row["text"], row["id"], row["candidate"], row["voice"]) for row in rows] == [
        ("First line.", "000001", 0, "a"),
        ("First line.", "000001", 1, "unknown"),
        ("second line", "000003", 0, "a"),
    ]
    assert [row["speech_ids"] for row in rows] == [[1, 2, 3], [2047, 0], [7]]
    assert [(row["finished"], row["log_probability"]) for row in rows] == [(False, -2.5), (True, None), (True, None)]
    assert all(row["input_ids"] == tortoise.tokenize(row["text"]) and row["seed"] is None for row in rows)
    skipped = json.loads(Path(folder, "skipped.jsonl").read_text())
    assert (skipped["id"], skipped["kind"]) == ("000002", "not stored")
    assert read_manifest(folder).source == "stored"


def test_two_columns_of_any_integers_are_enough(stored, make):
    types = pa.schema({"speech_ids": pa.large_list(pa.int64()), "text": pa.large_string()})
    rows = read_pairs(make(stored(columns=["speech_ids", "text"], types=types))).to_pylist()
    assert [(row["speech_ids"], row["voice"], row["finished"]) for row in rows][2] == ([7], "unknown", True)


def test_other_codes_give_another_folder_wherever_the_file_is(stored, make, tmp_path):
    first = make(stored())
    (tmp_path / "codes.parquet").rename(tmp_path / "moved.parquet")
    assert make(StoredCodes(str(tmp_path / "moved.parquet"))) == first
    assert make(stored(ROWS[:2])) != first


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([{"text": "a"}], "no column 'speech_ids'"),
        ([{"text": 1, "speech_ids": [[1]]}], "cannot be read"),
        ([ROWS[0] | {"speech_ids": []}], "a row has no text or no codes"),
        ([ROWS[0] | {"text": None}], "a row has no text or no codes"),
        ([ROWS[0] | {"speech_ids": [2048]}], "codes range from 2048 to 2048, but .* from 0 to 2047"),
        ([ROWS[0] | {"speech_ids": [-1, 5]}], "codes range from -1 to 5"),
    ],
)
def test_a_bad_file_is_refused_before_any_work(stored, make, tmp_path, rows, message):
    types = None if rows else pa.schema({"text": pa.string(), "speech_ids": pa.list_(pa.int32())})
    with pytest.raises(UserError, match=f"codes.parquet: .*{message}"):
        make(stored(rows, types=types))
    assert not (tmp_path / "codes").exists()


def test_bad_rows_are_skipped_and_padding_is_removed(stored, make, caplog):
    """2048 codes: 2048 is the start token, 2049 the stop token."""
    plain = read_pairs(make(stored())).to_pylist()
    rows = [row | {"speech_ids": [2048, *row["speech_ids"], 2049, 2049]} for row in ROWS]
    rows += [ROWS[0] | {"speech_ids": []}, ROWS[1] | {"text": None}]
    padded = read_pairs(make(stored(rows))).to_pylist()
    assert [row["speech_ids"] for row in padded] == [row["speech_ids"] for row in plain]
    assert "codes.parquet: 2 rows without a text or codes are skipped" in caplog.text


def test_a_missing_file_and_a_missing_text(stored, make, tmp_path):
    with pytest.raises(UserError, match=r"codes.path=nowhere.parquet: no such file\. Set it to a Parquet file"):
        make(StoredCodes("nowhere.parquet"))
    with pytest.raises(UserError, match="utterance 000002: text 'Nowhere stored.' is not in .*codes.bad_rows=skip"):
        make(stored(bad_rows="error"))
    assert not (tmp_path / "codes").exists()


def test_codes_of_another_codebook_are_refused(stored, make, tortoise):
    make(stored(metadata={"codebook": tortoise.dvae.codebook.digest()}))
    with pytest.raises(UserError, match=r"codes.parquet: made by another DVAE than that of tortoise="):
        make(stored(metadata={"codebook": "0" * 64}))
