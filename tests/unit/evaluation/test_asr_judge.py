import pytest

from clvp_train.corpus import TextLines
from clvp_train.evaluation import ASRJudge
from clvp_train.pairs import ARCodes, generate, read_pairs
from clvp_train.tortoise import FrozenTortoise
from tests.unit.pairs.conftest import DATA, VOICES


class HearsLengths:
    """Transcribes a clip of four codes as the first text in capitals, and any other as silence."""

    def __init__(self):
        self.batches = []

    def fingerprint(self):
        return "lengths"

    def open(self, device):
        return self.transcribe

    def transcribe(self, clips):
        self.batches.append(len(clips))
        return ["WORDS, one" if len(clip) == (4 * 4 - 1) * 256 else " " for clip in clips]


def test_quality_is_minus_the_character_error_rate(tmp_path, monkeypatch):
    monkeypatch.setattr("clvp_train.evaluation.asr_judge.DECODED_AT_ONCE", 5)
    (tmp_path / "corpus.txt").write_text("Words one.\nWords two.\n")
    tortoise, asr = FrozenTortoise.from_pretrained(DATA / "tortoise", sampling={"max_codes": 4}), HearsLengths()
    codes = ARCodes(VOICES, 4, 4, judge=ASRJudge(asr))
    folder = generate(TextLines(str(tmp_path / "corpus.txt")), tortoise, codes, folder=tmp_path / "pairs")
    rows = read_pairs(folder).to_pylist()
    heard = {"Words one.": 0.0, "Words two.": -3 / 9}
    for row in rows:
        expected = heard[row["text"]] if len(row["speech_ids"]) == 4 else -1.0
        assert row["quality"] == pytest.approx(expected)
    assert asr.batches == [5, 3]
