"""Errors that a command reports in one line, without a traceback, and signals that stop it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

# Ctrl-C, and what clusters send before they kill; Windows has no SIGUSR1
STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class UserError(Exception):
    """Bad input or a bad setting. The message follows `<setting or file>: <what is wrong>. <what to do>.`; commands print it as
    one line and exit with status 2."""


def user_error(error: BaseException | None) -> UserError | None:
    """The UserError among an error and its causes; None if there is none."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


class Findings(list[str]):
    """User errors that are reported together."""

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Collects a user error of the block, which ends there."""
        try:
            yield
        except Exception as error:
            found = user_error(error)
            if found is None:
                raise
            self.append(str(found))

    def report(self) -> None:
        """Raises one UserError with all findings, each once, if there are any."""
        if self:
            raise UserError(" ".join(dict.fromkeys(self)))


class Stopped(SystemExit):
    """A signal ended the work after everything was saved. Commands exit with 128 + `signal_number`.

    It is a `SystemExit`, so that `--multirun` stops as well instead of starting the next job.
    """

    is_exiting: ClassVar[bool] = False  # whether this process has been stopped and is about to exit

    def __init__(self, signal_number: int, hint: str, when: str = "") -> None:
        """`hint` is what the user can do next, as a sentence; `when` may be " after step 3"."""
        super().__init__(128 + signal_number)
        Stopped.is_exiting = True
        self.signal_number = signal_number
        self.message = f"stopped by {signal.Signals(signal_number).name}{when}. {hint}"


@contextmanager
def stopping(hint: Callable[[], str]) -> Iterator[None]:
    """Raises `Stopped` in the main thread when a signal of `STOPS` arrives during the block.

    Args:
        hint: returns what the user can do next, as a sentence.
    """

    def stop(number: int, frame: Any) -> None:
        # srun --kill-on-bad-exit=1 sends SIGTERM when the first rank has saved and exits; the status must stay that of SIGUSR1
        if not (Stopped.is_exiting and number == signal.SIGTERM):
            raise Stopped(number, hint())

    Stopped.is_exiting = False
    with handling(stop):
        yield


@contextmanager
def deferring() -> Iterator[None]:
    """Handles a signal of `STOPS` that arrives during the block after it, for work that an exception would leave half done."""
    arrived: list[int] = []
    with handling(lambda number, frame: arrived.append(number)):
        yield
    if arrived:
        signal.raise_signal(arrived[-1])


@contextmanager
def handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handles the signals of `STOPS` during the block, and restores their handlers after it.

    A signal that is ignored, as SIGINT is in a background job of a shell, stays ignored. Outside of the main thread nothing is
    handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: old for number in STOPS if (old := signal.getsignal(number)) not in (signal.SIG_IGN, None)}
    try:
        for number in previous:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
