"""The loader of training batches."""

import signal
import time
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from clvp_train.errors import STOPS, UserError


class TimedLoader(DataLoader[Any]):
    """Measures how long training waits for batches.

    Attributes:
        seconds: the total since the loader was made. It grows by next to nothing per batch while the worker processes keep up.
    """

    seconds = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            start = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            except UserError as error:  # of a loader process, after whose traceback its message stands
                raise UserError(str(error).rpartition("UserError: ")[2].strip()) from None
            self.seconds += time.monotonic() - start
            yield batch


def ignore_signals(worker: int) -> None:
    """Leaves signals, which may reach all processes of a command, to the process that saves a checkpoint first."""
    for number in STOPS:
        if number != signal.SIGTERM:  # ends workers that hang
            signal.signal(number, signal.SIG_IGN)
