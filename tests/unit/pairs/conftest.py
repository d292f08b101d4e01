from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clvp_train.corpus import ManifestCorpus, TextLines
from clvp_train.tortoise import FrozenTortoise

DATA = Path(__file__).parents[3] / "data" / "nano"
VOICES = str(DATA / "voices")


@pytest.fixture(scope="session")
def tortoise() -> FrozenTortoise:
    """The bundled Tortoise, with at most six codes per candidate."""
    return FrozenTortoise.from_pretrained(DATA / "tortoise", sampling={"max_codes": 6})


@pytest.fixture
def write_corpus(tmp_path) -> Callable[..., TextLines]:
    """A corpus of the given texts, or of a number of texts of different lengths."""

    def write(lines: list[str] | int = 20, name: str = "corpus.txt") -> TextLines:
        if isinstance(lines, int):
            lines = [f"{number} {'of these are ' * (number % 4)}words" for number in range(lines)]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return TextLines(str(tmp_path / name))

    return write


@pytest.fixture
def write_recordings(tmp_path) -> Callable[..., ManifestCorpus]:
    """A manifest of noise, one wav per given speaker ("" for none), each longer than the one before; `order` permutes rows."""

    def write(speakers: list[str], order: list[int] | None = None) -> ManifestCorpus:
        draw, rows = np.random.default_rng(0), []
        for number, speaker in enumerate(speakers):
            soundfile.write(tmp_path / f"{number}.wav", draw.uniform(-0.3, 0.3, 4000 + 1111 * number), 22_050)
            rows.append(f"{number}.wav,text number {number},{speaker}")
        rows = [rows[number] for number in order or range(len(rows))]
        (tmp_path / "manifest.csv").write_text("\n".join(["audio,text,speaker", *rows]) + "\n")
        return ManifestCorpus(str(tmp_path / "manifest.csv"))

    return write
