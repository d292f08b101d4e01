"""The folder of somebody who follows the pages: a clone, and in it everything that their commands name."""

import csv
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from clvp_train.models import load_clvp
from clvp_train.tortoise.tokenizer import train_custom_tokenizer
from tests.e2e.commands import ROOT, run
from tests.e2e.conftest import trained  # noqa: F401 a fixture
from tests.original_tortoise import write_original

CLIPS = 80  # of which a batch of 32 is left for training
HUB_COMMIT = "0" * 40


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    return (ROOT / "data/nano/sentences.txt").read_text().splitlines()[200 : 200 + CLIPS]


@pytest.fixture(scope="session")
def shelf(trained, sentences, tmp_path_factory) -> Path:  # noqa: F811
    """Everything under the name that the pages give it. What a new page names is put here."""
    shelf = tmp_path_factory.mktemp("shelf")
    _write_clips(shelf, sentences)
    (shelf / "lines.txt").write_text("\n".join(sentences) + "\n")
    load_clvp(trained.output / "model").save_tortoise(shelf / "clvp2.pth")
    write_original(shelf / "models", codes=512)
    for folder in ("pairs", "pairs/lj", "FOLDER"):
        shutil.copytree(trained.pairs, shelf / folder, dirs_exist_ok=True)
    for folder in ("A", "B"):
        shutil.copytree(trained.output / "model", shelf / folder)
    (drawn,) = trained.cwd.glob("outputs/codes/sentences-txt-test-ar-*")
    shutil.copytree(drawn, shelf / "candidates")
    ranked = [f"checkpoint={trained.output}/model", "candidates=candidates", "output_dir=reranked"]
    assert run("clvp_train/rerank.py", ranked, shelf).status == 0
    train_custom_tokenizer(iter(sentences), 255).save_pretrained(shelf / "tokenizer")
    shutil.copy(trained.cwd / "sentences.txt", shelf)
    shutil.copytree(trained.cwd / "outputs/codes", shelf / "outputs/codes")
    shutil.copytree(trained.output, shelf / "outputs/train/DATE")
    return shelf


@pytest.fixture(scope="session")
def hub(tmp_path_factory) -> Path:
    """HF_HOME with the bundled Tortoise as the published one, since its format is the same."""
    hub = tmp_path_factory.mktemp("hub")
    repository = hub / "hub/models--susnato--clvp_dev"
    shutil.copytree(ROOT / "data/nano/tortoise", repository / "snapshots" / HUB_COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(HUB_COMMIT)
    return hub


@pytest.fixture
def clone(shelf, tmp_path) -> Callable[[str], Path]:
    """Makes the folder to run a text in: a clone with an installed .venv and what is on the shelf, but for what the text
    makes itself. A run that it goes on with is unfinished."""

    def make(text: str) -> Path:
        for entry in ROOT.iterdir():
            if not entry.name.startswith(".") and entry.name not in ("outputs", "multirun", "wandb"):
                (tmp_path / entry.name).symlink_to(entry)
        (tmp_path / ".ci").symlink_to(ROOT / ".ci")
        link_environment(tmp_path / ".venv")
        shutil.copytree(shelf, tmp_path, dirs_exist_ok=True)
        for made in re.findall(r"\boutput_dir=(\S+)", text):
            shutil.rmtree(tmp_path / made, ignore_errors=True)
        if re.search(r"\bresume=", text):
            _interrupt(tmp_path / "outputs/train/DATE")
        return tmp_path

    return make


def link_environment(venv: Path) -> None:
    """The running environment as `make install` leaves it; through links, so that nothing can harm it."""
    venv.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (venv / name).symlink_to(Path(sys.prefix, name))
    (venv / ".installed").touch()


def _write_clips(shelf: Path, sentences: list[str]) -> None:
    """Tower a second to a second of the bundled voices a sentence, as LJSpeech lays it out, and as a manifest."""
    (shelf / "LJSpeech-1.1/wavs").mkdir(parents=True)
    (shelf / "clips").mkdir()
    files = sorted((ROOT / "data/nano/voices").glob("*/*.flac"))
    lines, rows = [], [("audio", "text", "speaker")]
    for number, text in enumerate(sentences):
        file, place = files[number % len(files)], number // len(files)
        samples, rate = soundfile.read(file)
        start = place * rate // 5
        clip = samples[start : start + rate // 2 + number * rate // 120]
        soundfile.write(shelf / f"LJSpeech-1.1/wavs/LJ{number:03}.wav", clip, rate)
        soundfile.write(shelf / f"clips/{number}.wav", clip, rate)
        lines.append(f"LJ{number:03}|{text}|{text}\n")
        rows.append((f"clips/{number}.wav", text, file.parent.name))
    (shelf / "LJSpeech-1.1/metadata.csv").write_text("".join(lines))
    with (shelf / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def _interrupt(run: Path) -> None:
    """A run that wanted more steps than it has made."""
    shutil.rmtree(run / "model")
    overrides = run / "config/overrides.yaml"
    overrides.write_text(overrides.read_text().replace("trainer.max_steps=4", "trainer.max_steps=6"))
