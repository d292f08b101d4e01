import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clvp_train.corpus import Corpus
from clvp_train.errors import UserError


def fails(corpus: Corpus, *words: str) -> None:
    """Iterating raises a one-line UserError with every word before the first utterance."""
    with pytest.raises(UserError) as caught:
        next(iter(corpus))
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


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
