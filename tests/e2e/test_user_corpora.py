"""`python -m clvp_train.generate` on corpora as people bring them: what is read, and what is skipped with which reason."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clvp_train.pairs import read_pairs
from tests.e2e.commands import GENERATE, run
from tests.original_tortoise import write_original

RATE = 22_050
NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, RATE // 2)


def clip(path: str, samples: np.ndarray = NOISE, rate: int = RATE, cut: float = 1, **format: str) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, samples, rate, **format)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * cut)])


def text(path: str, content: str = "") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content, encoding="utf-8")


def manifest(*texts: str) -> None:
    text("clips.csv", "\n".join(["audio,text", *(f'{n}.wav,"{line}"' for n, line in enumerate(texts))]))


def recordings() -> None:
    """Every kind of broken, odd and good sound; the text says which."""
    with_nan, floating = NOISE.copy(), {"subtype": "FLOAT"}
    with_nan[7000] = np.nan
    clips = {
        "good": {"samples": NOISE},
        "mp3 called wav": {"samples": NOISE, "format": "MP3"},
        "ADPCM": {"samples": NOISE, "subtype": "IMA_ADPCM"},
        "one dead channel": {"samples": np.outer(NOISE, (0, 1))},
        "antiphase": {"samples": np.outer(NOISE, (1, -1))},
        "silence": {"samples": NOISE * 0},
        "not a number": {"samples": with_nan, **floating},
        "integer scale": {"samples": NOISE * 2**15, **floating},
        "one hertz": {"samples": NOISE[:500], "rate": 1},
        "cut": {"samples": NOISE, "cut": 0.5},
        "long": {"samples": np.tile(NOISE, 60)},
    }
    for number, settings in enumerate(clips.values()):
        clip(f"{number}.wav", **settings)
    manifest(*clips)


def layouts() -> None:
    """One folder with the layouts of LibriTTS, LibriSpeech and Whisper, upper-case suffixes, and what a Mac adds."""
    for name in ("84/1/84_1_0.wav", "84/1/84-1-1.flac", "ben/a.wav", "ben/B.WAV", "carl/1.opus", "anna/2.mp3"):
        clip(f"corpus/{name}", rate=48_000, **({"format": "OGG", "subtype": "OPUS"} if name.endswith("opus") else {}))
    text("corpus/84/1/84_1_0.normalized.txt", "normalised libri text")
    text("corpus/84/1/84_1_0.original.txt", "ORIGINAL")
    text("corpus/84/1/84-1.trans.txt", "84-1-1 LIBRI SPEECH")
    text("corpus/ben/a.wav.txt", "of whisper")
    text("corpus/ben/B.TXT", "in capitals")
    text("corpus/carl/1.txt", "opus")
    text("corpus/anna/2.txt", "mp three")
    for name in ("anna/._2.mp3", "anna/._2.txt", ".DS_Store", "__MACOSX/ben/._a.wav"):
        text(f"corpus/{name}", "\0\5\26\7")


def metadata() -> None:
    """Ids with suffixes, blank lines, speakers in the third column, and long numbers."""
    for number in range(4):
        clip(f"wavs/{number}.wav")
    rows = ("0.wav|The gate.|anna", "", "1.wav|She closed it.|anna", "2.wav|Room 7.|ben", f"3|Call {'12' * 20}.|ben")
    text("metadata.csv", "\n".join(rows))


def scripts() -> None:
    texts = ("你好，世界！", "Мы ждали 5 часов", "नमस्ते! आप कैसे हैं?", "Good morning", "Ça va, Jürgen?")
    for number in range(len(texts)):
        clip(f"{number}.wav")
    manifest(*texts)


def german() -> None:
    """The AR of another language, with its own tokenizer.json."""
    write_original(Path("ar"), codes=96)
    letters = ["[STOP]", "[UNK]", "[SPACE]", *"aäeghirtuß"]
    vocabulary = {token: number for number, token in enumerate(letters)}
    text("ar/tokenizer.json", json.dumps({"model": {"type": "BPE", "vocab": vocabulary, "merges": []}}))
    text("lines.txt", "\n".join(("Ä ruß", "THE TIGER", "Привет")))


CSV = ["corpus=manifest", "corpus.path=clips.csv", "codes=dvae"]
ORIGINAL = ["tortoise=original", "tortoise.folder=ar", "tortoise.tokenizer=ar/tokenizer.json", "tortoise.device=cpu"]
AR = ["corpus=text", "corpus.path=lines.txt", "num_candidates=1", "tortoise.sampling.max_codes=8"]


@pytest.mark.parametrize(
    ("write", "settings", "read", "skipped", "says"),
    [
        (
            recordings,
            CSV,
            {"good", "mp3 called wav", "ADPCM", "one dead channel", "antiphase"},
            {
                "5.wav": "silent",
                "6.wav": "NaN",
                "7.wav": "full scale",
                "8.wav": "1 Hz",
                "9.wav": "cut short",
                "10.wav": "codes.max_codes",
            },
            ["silent channels left out (1)", "antiphase"],
        ),
        (
            layouts,
            ["corpus=folder", "corpus.root=corpus", "codes=dvae"],
            {"normalised libri text", "LIBRI SPEECH", "of whisper", "in capitals", "opus", "mp three"},
            {},
            [],
        ),
        (
            metadata,
            ["corpus=ljspeech", "corpus.root=.", "codes=dvae"],
            {"The gate.", "She closed it.", "Room 7.", f"Call {'12' * 20}."},
            {},
            ["reading id|text|speaker"],
        ),
        (
            scripts,
            CSV,
            {"Good morning", "Ça va, Jürgen?"},
            dict.fromkeys(("0.wav", "1.wav", "2.wav"), "train_tokenizer"),
            [],
        ),
        (german, [*AR, *ORIGINAL], {"Ä ruß", "THE TIGER"}, {"000003": "letters"}, []),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_people_bring(tmp_path, monkeypatch, write: Callable[[], None], settings, read, skipped, says):
    monkeypatch.chdir(tmp_path)
    write()
    done = run(GENERATE, [*settings, "output_dir=pairs", "hydra.run.dir=run"], tmp_path)
    assert done.status == 0 and "Traceback" not in done.stderr, done.stderr
    pairs = read_pairs("pairs").to_pylist()
    assert {row["text"] for row in pairs} == read and all(row["speech_ids"] for row in pairs)
    file = Path("pairs/skipped.jsonl")
    reasons = {row["id"]: row["reason"] for row in map(json.loads, file.read_text().splitlines())} if skipped else {}
    assert reasons.keys() == skipped.keys() and all(skipped[name] in reason for name, reason in reasons.items())
    assert all(words in done.stdout + done.stderr for words in says)
