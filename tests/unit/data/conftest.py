from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.pairs_folder import VOCABULARY, write_folder


@pytest.fixture
def write_pairs(tmp_path) -> Callable[..., Path]:
    """Writes a folder of pairs; a text and its candidates are ids that follow from their numbers. Every fifth text's
    candidates ran into the limit."""

    def row(text: str, split: str, number: int, candidate: int) -> dict[str, Any]:
        return {
            "id": f"{split}{number}",
            "text": text,
            "split": split,
            "input_ids": [1 + number % 20] * (1 + number % 5),
            "speech_ids": [number % VOCABULARY] * (2 + number % 11) + [candidate],
            "voice": "v",
            "candidate": candidate,
            "finished": number % 5 != 4,
            "seed": 0,
        }

    def write(
        train: int = 20,
        val: int = 5,
        test: int = 5,
        candidates: int = 3,
        extra: tuple[str, ...] = (),
        name: str = "pairs",
        **changes: Any,
    ) -> Path:
        rows = [row(f"train {n}", "train", n, k) for n in range(train) for k in range(candidates)]
        rows += [row(text, "train", train + n, 0) for n, text in enumerate(extra)]
        rows += [
            row(f"{split} {n}", split, n, 0) for split, size in (("val", val), ("test", test)) for n in range(size)
        ]
        middle = len(rows) // 2
        return write_folder(tmp_path / name, [rows[:middle], rows[middle:]], **changes)

    return write
