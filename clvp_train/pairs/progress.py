"""Progress of long work on candidates: one bar on a terminal, log lines at intervals elsewhere."""

import logging
import sys
import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from clvp_train.pairs.schema import CODES_PER_SECOND

LOG_SECONDS = 30.0  # between two lines of a log that is not a terminal
log = logging.getLogger(__name__)


class Progress:
    """Counts the candidates and codes of this rank, and logs one line at the end.

    Args:
        total: how many candidates are planned.
        shown: whether this rank shows anything.
        label: names the work in the output.
        code_rate: codes per second of speech.
    """

    def __init__(
        self, total: int, shown: bool, label: str = "speech codes", code_rate: float = CODES_PER_SECOND
    ) -> None:
        console = Console(stderr=True)
        self._has_bar = shown and console.is_terminal
        columns = (
            TextColumn(label),
            BarColumn(None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Bar(*columns, console=console, transient=True, disable=not self._has_bar)
        self._task = self._bar.add_task("", total=total, speed="")
        self._total, self._shown, self._label, self._code_rate = total, shown, label, code_rate
        self._streams: dict[logging.StreamHandler, Any] = {}
        self._done = self._in_parts = self._codes = self._skipped = 0
        self._started = self._logged = time.monotonic()

    def __enter__(self) -> "Progress":
        self._bar.start()
        if self._has_bar:  # rich replaces sys.stdout and prints log lines above the bar instead of into it
            handlers = [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]
            self._streams = {handler: handler.setStream(sys.stdout) for handler in handlers if handler.stream.isatty()}
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._bar.stop()
        for handler, stream in self._streams.items():
            handler.setStream(stream)
        if self._shown and error is None:
            log.info("%s: %s", self._label, self._line())

    def candidate(self, num_codes: int, count: int = 1) -> None:
        """Counts one more candidate, or `count`, of together `num_codes` codes."""
        self._codes += num_codes
        self._update(self._done + count)

    def finish_part(self, planned: int, num_skipped: int = 0) -> None:
        """Counts the `planned` candidates of a shard or file as done, including those of skipped rows."""
        self._in_parts += planned
        self._skipped += num_skipped
        self._update(self._in_parts)

    def _update(self, done: int) -> None:
        self._done, now = done, time.monotonic()
        self._bar.update(self._task, completed=done, speed=self._speed())
        if self._shown and not self._has_bar and now - self._logged >= LOG_SECONDS:
            self._logged = now
            left = (now - self._started) * (self._total - done) / max(done, 1)
            log.info("%s: %s, %s left", self._label, self._line(), timedelta(seconds=round(left)))

    def _line(self) -> str:
        elapsed = timedelta(seconds=round(time.monotonic() - self._started))
        skipped = f", {self._skipped} skipped" if self._skipped else ""
        return f"{self._done} of {self._total} candidates, {self._speed()}, {elapsed} elapsed{skipped}"

    def _speed(self) -> str:
        speed = self._codes / max(time.monotonic() - self._started, 1e-3)
        return f"{speed:.0f} codes/s, {speed / self._code_rate:.0f} × real time"
