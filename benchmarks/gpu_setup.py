"""Where the checks of `gpu_check.py` run, and what they report."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

ROOT = Path(__file__).resolve().parents[1]
NANO = ROOT / "data" / "nano"


class Row(NamedTuple):
    """A line of the table. `passed` is None for a measurement."""

    result: str
    figure: str
    passed: bool | None = None


@dataclass(frozen=True)
class Setup:
    """Where the checks run, and whether at their tiny size."""

    device: str
    tiny: bool

    def pick(self, full: Any, tiny: Any) -> Any:
        return tiny if self.tiny else full

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], Any], repeats: int = 10) -> float:
        """The mean time of a call, after two for warm-up."""
        for _ in range(2):
            run()
        self.wait()
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        self.wait()
        return (time.perf_counter() - start) / repeats


def reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float:
    """GPU memory that was allocated at most since `reset_peak`."""
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
