import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clvp_train.errors import UserError
from clvp_train.metrics import mel_distances
from clvp_train.pairs import ARCodes, DVAECodes, RecordingDistance, generate, read_manifest, read_pairs
from clvp_train.tortoise.vocoder import decode_mels
from tests.unit.pairs.conftest import VOICES

CANDIDATES = {"num_candidates": 3, "num_eval_candidates": 3}
STORED = [{"text": "THE first, text!", "voice": "slt", "speech_ids": [3, 1, 4, 1, 5, 9]}]
STORED += [{"text": "the second text", "voice": voice, "speech_ids": [7] * 5} for voice in ("awb", "joe", "nobody")]


@pytest.fixture
def stored(tmp_path):
    """Writes recordings to a Parquet file."""

    def write(rows=STORED):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "recordings.parquet")
        return str(tmp_path / "recordings.parquet")

    return write


def expected(tortoise, row, codes):
    return -mel_distances(decode_mels(tortoise, [row["speech_ids"]]), decode_mels(tortoise, [codes]))[0]


def test_candidates_in_the_voice_of_a_stored_recording_are_judged(tortoise, write_corpus, stored, tmp_path):
    corpus, source = write_corpus(["the first text", "the second text", "the third text"]), stored()
    judged = ARCodes(VOICES, 8, 8, judge=RecordingDistance(source))
    rows = read_pairs(generate(corpus, tortoise, judged, folder=tmp_path / "judged")).to_pylist()
    recordings = {("the first text", "slt"): STORED[0], ("the second text", "awb"): STORED[1]}
    recordings["the second text", "joe"] = STORED[2]
    for row in rows:
        recording = recordings.get((row["text"], row["voice"]))
        assert (row["quality"] is None) == (recording is None)
        if recording:
            assert row["quality"] == pytest.approx(expected(tortoise, row, recording["speech_ids"]), abs=1e-4)
    assert sum(row["quality"] is not None for row in rows) == 6 and len({row["quality"] for row in rows}) > 5
    plain = read_pairs(generate(corpus, tortoise, ARCodes(VOICES, 8, 8), folder=tmp_path / "plain")).to_pylist()
    assert [row | {"quality": None} for row in rows] == plain, "the candidates are the same"


def test_recordings_of_the_corpus(tortoise, write_recordings, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("clvp_train.pairs.judges.CLIPS_AT_ONCE", 2)
    corpus = write_recordings(["a", "b", "a", "b"])
    recorded = generate(corpus, tortoise, DVAECodes(), folder=tmp_path / "recorded")
    codes = {row["id"]: row["speech_ids"] for row in read_pairs(recorded).to_pylist()}
    (tmp_path / "2.wav").write_text("not audio")
    sources = [ARCodes("corpus", **CANDIDATES, judge=RecordingDistance(place)) for place in ("corpus", recorded)]
    own, folder = (generate(corpus, tortoise, source, cache_dir=tmp_path / "codes") for source in sources)
    own_rows, rows = (read_pairs(made).to_pylist() for made in (own, folder))
    for row in rows:
        assert row["quality"] == pytest.approx(expected(tortoise, row, codes[row["id"]]), abs=1e-4)
    assert [row["quality"] for row in own_rows] == [
        None if row["id"] == "2.wav" else pytest.approx(row["quality"], abs=1e-4) for row in rows
    ]
    assert "candidates of utterance 2.wav are not judged" in caplog.text


def test_another_judge_is_another_folder_and_no_judge_the_same_as_ever(tortoise, write_corpus, stored, tmp_path):
    corpus, made = write_corpus(["the first text"]), []
    for rows in (None, STORED, STORED, STORED[:1]):
        judge = None if rows is None else RecordingDistance(stored(rows))
        made.append(generate(corpus, tortoise, ARCodes(VOICES, 1, 1, judge=judge), cache_dir=tmp_path / "codes"))
    assert made[1] == made[2] and len(set(made)) == 3
    assert not [name for name in read_manifest(made[0]).settings if "judge" in name]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (None, "cannot be read.*Set it to corpus, a folder of pairs, or a Parquet file"),
        ([{"text": "a", "speech_ids": [1]}], "cannot be read.*columns text, voice, speech_ids"),
        ([STORED[0] | {"speech_ids": [1, 2048]}], "range from 1 to 2048, but those of .* from 0 to 2047"),
    ],
)
def test_unsuitable_recordings_are_reported_before_anything_is_drawn(
    tortoise, write_corpus, stored, tmp_path, rows, words
):
    judge = RecordingDistance(stored(rows) if rows else str(tmp_path / "nothing.parquet"))
    with pytest.raises(UserError, match=rf"codes.judge.recordings=.*{words}"):
        generate(write_corpus(2), tortoise, ARCodes(VOICES, judge=judge), folder=tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


def test_a_judge_needs_recordings_and_a_dvae(tortoise, write_corpus, stored, tmp_path, monkeypatch, caplog):
    judge = RecordingDistance("corpus")
    with pytest.raises(UserError, match="utterance 000001: no audio, but codes.judge needs recordings"):
        generate(write_corpus(2), tortoise, ARCodes(VOICES, judge=judge), folder=tmp_path / "pairs")
    generate(write_corpus(2), tortoise, ARCodes(VOICES, judge=RecordingDistance(stored())), folder=tmp_path / "none")
    assert "no candidate of this shard has a recording of its text in its voice" in caplog.text
    monkeypatch.setattr(tortoise, "dvae", None)
    with pytest.raises(UserError, match="no DVAE"):
        generate(write_corpus(2), tortoise, ARCodes(VOICES, judge=judge), folder=tmp_path / "pairs")
