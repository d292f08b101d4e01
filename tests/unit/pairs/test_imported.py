import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from transformers import ByT5Tokenizer

from clvp_train.errors import UserError
from clvp_train.pairs import (
    Codec,
    CodeTable,
    Columns,
    Importer,
    import_pairs,
    open_tokenizer,
    read_manifest,
    read_pairs,
)
from clvp_train.pairs.schema import shard_index
from clvp_train.pipelines.import_pairs import import_tables
from clvp_train.tortoise.tokenizer import code_tokenizer, load_tokenizer
from tests.conf.test_conf import compose
from tests.unit.pairs.conftest import DATA

ROWS = [
    {
        "text": f" Text number {number}. ",
        "codes": [[number, 1, 2], [3, 4, 5]],
        "ids": [5, 6, number],
        "name": number % 2,
        "part": ("train", "validation", "test")[number % 3],
        "logp": -0.5 * number,
        "wer": None if number == 3 else 0.25,
    }
    for number in range(10)
]
ALL = Columns(speaker="name", split="part", log_probability="logp", quality="wer")


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(DATA / "tortoise"))


@pytest.fixture
def write(tmp_path):
    """Writes rows in a format. Returns the name of the source."""

    def write(rows=ROWS, kind="parquet"):
        file, table = tmp_path / f"codes.{kind}", pa.Table.from_pylist(rows)
        if kind == "parquet":
            pq.write_table(table, file)
        elif kind == "jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif kind == "csv":
            lines = [f"{row['text']},{' '.join(map(str, row['codes'][0]))},{row['part']}" for row in rows]
            file.write_text("\n".join(["text,codes,part", *lines]))
        else:
            datasets.Dataset(table).save_to_disk(file)
        return str(file)

    return write


@pytest.fixture
def make(write, tokenizer, tmp_path):
    def make(rows=ROWS, kind="parquet", columns=ALL, codec=None, tokenizer=tokenizer, **settings):
        codec = codec or Codec(10, 12.5, num_streams=2, streams="flatten")
        importer = Importer(columns, codec, tokenizer, **{"shard_size": 4} | settings)
        return import_pairs(CodeTable(write(rows, kind)), importer, folder=tmp_path / "pairs")

    return make


def test_tables_in_pairs_become_folders(make, write, tmp_path):
    folder = make()
    codec = [
        "codec=default",
        "codec.vocab_size=10",
        "codec.frame_rate=12.5",
        "codec.num_streams=2",
        "columns.split=part",
    ]
    composed = compose("train", f"paths.codes={tmp_path}/codes", *codec)

    def imported(pairs):
        cfg = OmegaConf.merge(composed, {"pairs": pairs})
        import_tables(cfg)
        return cfg.pairs

    found = imported({"a": write(), "b": {"path": folder, "weight": 2}})
    assert found.a.path.startswith(f"{tmp_path}/codes/codes-imported-") and found.a.weight == 1
    assert found.b == {"path": folder, "weight": 2} and imported({"a": write(), "b": folder}).a == found.a
    assert [row["speech_ids"] for row in in_order(found.a.path)] == [[number, 1, 2] for number in range(10)]
    for pairs in (folder, None):
        with pytest.raises(UserError, match="codec: pairs names no table"):
            imported(pairs)
    with pytest.raises(UserError, match="^pairs=README.md: unknown suffix"):
        imported("README.md")


def in_order(folder):
    return sorted(read_pairs(folder).to_pylist(), key=lambda row: row["id"])


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "dataset"])
def test_rows_become_pairs(make, tokenizer, kind):
    folder = make(kind=kind)
    rows, manifest = in_order(folder), read_manifest(folder)
    assert [row["text"] for row in rows] == [f"Text number {number}." for number in range(10)]
    assert rows[3] == {
        "id": "row-00000004",
        "text": "Text number 3.",
        "split": "train",
        "input_ids": tokenizer("Text number 3.")["input_ids"],
        "speech_ids": [3, 13, 1, 14, 2, 15],
        "voice": "1",
        "candidate": 0,
        "finished": True,
        "log_probability": -1.5,
        "seed": None,
        "quality": None,
    }
    assert [row["split"] for row in rows[:3]] == ["train", "val", "test"]
    assert (manifest.source, manifest.speech_vocab_size, manifest.code_rate) == ("imported", 20, 25.0)
    assert manifest.report["hours"] == pytest.approx(60 / 25 / 3600)
    assert open_tokenizer(folder)("Text")["input_ids"] == tokenizer("Text")["input_ids"]


def test_a_spreadsheet_and_a_tokenizer_of_transformers(make):
    folder = make(kind="csv", columns=Columns(split="part"), codec=Codec(10, 50), tokenizer=ByT5Tokenizer())
    row = in_order(folder)[7]
    assert row["speech_ids"] == [7, 1, 2] and row["input_ids"] == [ord(c) + 3 for c in "Text number 7."] + [1]
    assert open_tokenizer(folder)("Text")["input_ids"] == [*(ord(c) + 3 for c in "Text"), 1]


def test_given_tokens_are_kept_and_decoded_where_there_is_no_text(make, tokenizer):
    rows = in_order(make(columns=Columns(text=None, input_ids="ids")))
    assert [row["input_ids"] for row in rows] == [row["ids"] for row in ROWS]
    assert rows[0]["text"] == tokenizer.decode(ROWS[0]["ids"], skip_special_tokens=True)


def test_codes_are_matched_with_other_codes_of_their_voice(make):
    columns = Columns(codes="codes", speaker="name", split=None)
    folder = make([*ROWS, ROWS[0] | {"name": 7}], columns=columns, tokenizer=code_tokenizer(20), match="voice")
    rows, manifest = in_order(folder), read_manifest(folder)
    assert manifest.matches_voices and manifest.text_vocab_size == 21
    # shards of 4 rows: 0 to 3, 4 to 7, and 8, 9, 10, where every voice has one utterance only
    assert [row["text"] for row in rows] == ["0", "1"] * 4
    references = [rows[number]["speech_ids"] for number in (2, 3, 0, 1, 6, 7, 4, 5)]
    assert [row["input_ids"] for row in rows] == references
    skipped = [json.loads(line) for line in Path(folder, "skipped.jsonl").read_text().splitlines()]
    assert [entry["id"] for entry in skipped] == ["row-00000009", "row-00000010", "row-00000011"]
    assert "no other utterance of '7' in the same shard" in skipped[-1]["reason"]


def test_a_reference_says_something_else(make):
    texts = ["One.", "one", "Two.", "Three."]
    rows = [ROWS[number] | {"text": text, "name": 5} for number, text in enumerate(texts)]
    columns = Columns(codes="codes", speaker="name", split=None)
    folder = make(rows, columns=columns, tokenizer=code_tokenizer(20), match="voice")
    rows = in_order(folder)
    assert [row["input_ids"] for row in rows] == [rows[number]["speech_ids"] for number in (2, 2, 3, 0)]


def test_an_interrupted_import_resumes_with_the_same_bytes(make, monkeypatch):
    def shards(folder):
        return {file.name: file.read_bytes() for file in Path(folder).glob("*.parquet")}

    complete, calls, convert = shards(make()), [], Importer.convert

    def failing(self, numbered, bad):
        calls.append(len(numbered))
        if len(calls) == 12:  # ten rows of the head, one shard
            raise KeyboardInterrupt
        return convert(self, numbered, bad)

    for file in (folder := Path(make())).rglob("*"):
        file.unlink() if file.is_file() else None
    monkeypatch.setattr(Importer, "convert", failing)
    with pytest.raises(KeyboardInterrupt):
        make()
    assert {shard_index(name) for name in shards(folder)} == {0}
    assert shards(make()) == complete and calls[12:] == [*[1] * 10, 4, 2]


def test_bad_rows_are_skipped_and_listed(make):
    bad = [
        ROWS[0] | {"text": " "},
        ROWS[1] | {"codes": [[99]] * 2},
        ROWS[2] | {"logp": float("nan")},
        ROWS[4] | {"part": "x"},
    ]
    folder = make([*ROWS, *bad])
    skipped = [json.loads(line) for line in Path(folder, "skipped.jsonl").read_text().splitlines()]
    assert read_pairs(folder).num_rows == 10
    assert [entry["kind"] for entry in skipped] == ["no text", "no codes", "bad value", "bad value"]
    assert "codes.parquet, row 12: codes: code 99 is outside of the vocabulary" in skipped[1]["reason"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": Columns(codes="tokens")}, "codes.parquet: no column 'tokens'.*columns: text, codes.*Set columns"),
        ({"columns": Columns(), "match": "voice"}, "columns.speaker=null: match=voice needs speakers"),
        ({"codec": Codec(2, 50)}, "10 of the first 10 rows cannot be read. The first: .*row 1: .*code 2 is outside"),
        (
            {"columns": Columns(text=None, input_ids="codes")},
            "cannot be read. The first: .*codes: not one list of tokens from 0 to 255",
        ),
        ({"rows": [*ROWS, ROWS[0] | {"part": "test"}]}, "row 11: the text 'Text number 0.' is in split test, but"),
        ({"rows": [*ROWS, ROWS[0] | {"text": ""}], "bad_rows": "error"}, "row-00000011: .*not a text.*bad_rows=skip"),
    ],
)
def test_wrong_settings_are_refused(make, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        make(**settings)
    if "bad_rows" not in settings:
        assert not (tmp_path / "pairs").exists()


def test_other_input_is_refused_in_the_same_folder(make):
    make()
    with pytest.raises(UserError, match="other settings: codec.frame_rate .12.5 in the folder, 50 now."):
        make(codec=Codec(10, 50, num_streams=2, streams="flatten"))
    with pytest.raises(UserError, match="other settings: the rows of source.name"):
        make(ROWS[:9])


def test_an_unknown_source_is_refused(tokenizer, tmp_path):
    importer = Importer(Columns(), Codec(10, 50), tokenizer)
    for name, message in (("./nowhere", "source.name=.*does not exist"), (str(tmp_path), "cannot be loaded")):
        with pytest.raises(UserError, match=message):
            import_pairs(CodeTable(name), importer, folder=tmp_path / "pairs")
