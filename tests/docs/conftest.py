"""A clone of the repository with all files that the commands of the documentation use."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from clvp_train.models import load_clvp
from clvp_train.pairs import read_pairs
from clvp_train.tortoise.tokenizer import train_custom_tokenizer
from tests.e2e.commands import ROOT, run
from tests.e2e.conftest import trained  # noqa: F401 a fixture
from tests.original_tortoise import write_original

CLIPS = 80  # leaves more than a batch of 32 for training
HUB_COMMIT = "0" * 40


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    return (ROOT / "data/nano/sentences.txt").read_text().splitlines()[200 : 200 + CLIPS]


@pytest.fixture(scope="session")
def inputs(trained, sentences, tmp_path_factory) -> Path:  # noqa: F811
    """All files that the pages refer to, by the names that they use. Add those of new pages here."""
    inputs = tmp_path_factory.mktemp("inputs")
    _write_clips(inputs, sentences)
    (inputs / "lines.txt").write_text("\n".join(sentences) + "\n")
    _write_codes(inputs, sentences)
    stored = read_pairs(trained.pairs, ["text", "speech_ids"])
    pq.write_table(stored, inputs / "recordings.parquet")
    load_clvp(trained.output / "model").save_tortoise(inputs / "clvp2.pth")
    write_original(inputs / "models", codes=2048)
    for folder in ("pairs", "pairs/lj", "pairs/clips", "FOLDER"):
        shutil.copytree(trained.pairs, inputs / folder, dirs_exist_ok=True)
    for folder in ("A", "B"):
        shutil.copytree(trained.output / "model", inputs / folder)
    (drawn,) = trained.cwd.glob("outputs/codes/sentences-txt-test-ar-*")
    shutil.copytree(drawn, inputs / "candidates")
    ranked = [f"checkpoint={trained.output}/model", "candidates=candidates", "output_dir=reranked"]
    assert run("clvp_train/rerank.py", ranked, inputs).status == 0
    train_custom_tokenizer(iter(sentences), 255).save_pretrained(inputs / "tokenizer")
    shutil.copy(trained.cwd / "sentences.txt", inputs)
    shutil.copytree(trained.cwd / "outputs/codes", inputs / "outputs/codes")
    shutil.copytree(trained.output, inputs / "outputs/train/DATE")
    return inputs


@pytest.fixture(scope="session")
def hub(tmp_path_factory) -> Path:
    """An HF_HOME with the bundled Tortoise in place of the published one, which has the same format."""
    hub = tmp_path_factory.mktemp("hub")
    repository = hub / "hub/models--susnato--clvp_dev"
    shutil.copytree(ROOT / "data/nano/tortoise", repository / "snapshots" / HUB_COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(HUB_COMMIT)
    return hub


@pytest.fixture
def clone(inputs, tmp_path) -> Callable[[str], Path]:
    """Creates the folder in which the commands of a text run: a clone with an installed .venv and `inputs`, without the
    folders that the text writes itself. A run that it resumes is unfinished."""

    def make(text: str) -> Path:
        for entry in ROOT.iterdir():
            if not entry.name.startswith(".") and entry.name not in ("outputs", "multirun", "wandb"):
                (tmp_path / entry.name).symlink_to(entry)
        (tmp_path / ".ci").symlink_to(ROOT / ".ci")
        link_environment(tmp_path / ".venv")
        shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
        for written in re.findall(r"\boutput_dir=(\S+)", text):
            shutil.rmtree(tmp_path / written, ignore_errors=True)
        if re.search(r"\bresume=", text):
            _interrupt(tmp_path / "outputs/train/DATE")
        return tmp_path

    return make


def link_environment(venv: Path) -> None:
    """Links the running environment as `make test` would create it."""
    venv.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (venv / name).symlink_to(Path(sys.prefix, name))
    for stamp in (".installed", ".installed-dev"):  # in this order
        (venv / stamp).touch()


def _write_clips(inputs: Path, sentences: list[str]) -> None:
    """Writes 0.5 to 1 s of the bundled voices per sentence, in LJSpeech layout and as a manifest."""
    (inputs / "LJSpeech-1.1/wavs").mkdir(parents=True)
    (inputs / "clips").mkdir()
    files = sorted((ROOT / "data/nano/voices").glob("*/*.flac"))
    lines, rows = [], [("audio", "text", "speaker")]
    for number, text in enumerate(sentences):
        file, position = files[number % len(files)], number // len(files)
        samples, rate = soundfile.read(file)
        start = position * rate // 5
        clip = samples[start : start + rate // 2 + number * rate // 120]
        soundfile.write(inputs / f"LJSpeech-1.1/wavs/LJ{number:03}.wav", clip, rate)
        soundfile.write(inputs / f"clips/{number}.wav", clip, rate)
        lines.append(f"LJ{number:03}|{text}|{text}\n")
        rows.append((f"clips/{number}.wav", text, file.parent.name))
    (inputs / "LJSpeech-1.1/metadata.csv").write_text("".join(lines))
    with (inputs / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def _write_codes(inputs: Path, sentences: list[str]) -> None:
    """Writes 8 streams of codes for each sentence, whose first stream depends on its letters, and candidates of others."""
    draw = np.random.default_rng(0)

    def codes(text: str) -> list[list[int]]:
        first = [8 * ord(letter) % 2048 + int(draw.integers(8)) for letter in text]
        return [first, *draw.integers(0, 2048, (7, len(first))).tolist()]

    rows = [{"text": text, "codes": codes(text), "speaker": f"s{n % 2}"} for n, text in enumerate(sentences[8:])]
    pq.write_table(pa.Table.from_pylist(rows), inputs / "codes.parquet")
    candidates = [
        {
            "text": text,
            "codes": codes(text),
            "candidate": number,
            "log_probability": -2.0 * len(text) - number,
            "quality": -number,
        }
        for text in sentences[:8]
        for number in range(3)
    ]
    (inputs / "candidates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in candidates))


def _interrupt(run: Path) -> None:
    """Makes a finished run one that needs more steps than it has taken."""
    shutil.rmtree(run / "model")
    (run / "finished.json").unlink()
    overrides = run / "config/overrides.yaml"
    overrides.write_text(overrides.read_text().replace("trainer.max_steps=4", "trainer.max_steps=6"))
