import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture
def write_audio() -> Callable[[Path], Path]:
    """Writes a tenth of a second of noise in the format of the path's suffix, with its folders."""

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, 2205), 22_050)
        return path

    return write


@pytest.fixture
def wav_bytes() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(2205), 22_050, format="WAV")
    return buffer.getvalue()
