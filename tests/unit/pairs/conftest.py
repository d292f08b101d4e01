from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clvp_train.corpus import TextLines
from clvp_train.tortoise import FrozenTortoise

DATA = Path(__file__).parents[3] / "data" / "nano"
VOICES = str(DATA / "voices")


@pytest.fixture(scope="session")
def tortoise() -> FrozenTortoise:
    """The bundled one, which stops after six codes."""
    return FrozenTortoise.from_pretrained(DATA / "tortoise", sampling={"max_codes": 6})


@pytest.fixture
def write_corpus(tmp_path) -> Callable[..., TextLines]:
    """Texts of different lengths, or those given."""

    def write(lines: list[str] | int = 20, name: str = "corpus.txt") -> TextLines:
        if isinstance(lines, int):
            lines = [f"{number} {'of these are ' * (number % 4)}words" for number in range(lines)]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return TextLines(str(tmp_path / name))

    return write


@pytest.fixture
def write_recordings(tmp_path) -> Callable[[list[str]], Path]:
    """A manifest and a wav of noise for each speaker named, each longer than the one before; "" is no speaker."""

    def write(speakers: list[str]) -> Path:
        draw, rows = np.random.default_rng(0), ["audio,text,speaker"]
        for number, speaker in enumerate(speakers):
            soundfile.write(tmp_path / f"{number}.wav", draw.uniform(-0.3, 0.3, 4000 + 1111 * number), 22_050)
            rows.append(f"{number}.wav,text number {number},{speaker}")
        path = tmp_path / "manifest.csv"
        path.write_text("\n".join(rows) + "\n")
        return path

    return write
