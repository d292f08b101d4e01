"""How far the drawing is: a bar for those who watch, a line a shard for those who read the log later."""

import logging
import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from clvp_train.pairs.tally import CODES_PER_SECOND

log = logging.getLogger(__name__)


class Progress:
    """Counts candidates and codes of this rank.

    Args:
        total: how many candidates are to be made.
        shown: whether this rank draws a bar and logs its shards.
    """

    def __init__(self, total: int, shown: bool) -> None:
        columns = (TextColumn("speech codes"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
        console = Console(stderr=True)
        off = not (shown and console.is_terminal)
        self._bar = Bar(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True, disable=off
        )
        self._task = self._bar.add_task("", total=total, speed="")
        self._total, self._done, self._codes, self._shown, self._started = total, 0, 0, shown, time.monotonic()

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def candidate(self, num_codes: int) -> None:
        """One more, of so many codes."""
        self._codes += num_codes
        self._bar.update(self._task, advance=1, speed=self._speed())

    def shard(self, name: str, planned: int, num_skipped: int) -> None:
        """A shard has been written. Of the `planned` candidates those of skipped rows were not made."""
        self._done += planned
        self._bar.update(self._task, completed=self._done)
        elapsed = time.monotonic() - self._started
        left = elapsed * (self._total - self._done) / max(self._done, 1)
        self._bar.stop()  # a log line would be written into the bar
        log.log(
            logging.INFO if self._shown else logging.DEBUG,
            "%s: %d of %d candidates, %s, %s elapsed, %s left%s",
            name,
            self._done,
            self._total,
            self._speed(),
            timedelta(seconds=round(elapsed)),
            timedelta(seconds=round(left)),
            f", {num_skipped} skipped" if num_skipped else "",
        )
        self._bar.start()

    def _speed(self) -> str:
        speed = self._codes / max(time.monotonic() - self._started, 1e-3)
        return f"{speed:.0f} codes/s, {speed / CODES_PER_SECOND:.0f} × real time"
