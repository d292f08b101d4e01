"""Errors that a command reports in one line, without a traceback."""


class UserError(Exception):
    """Bad input or a bad setting. The message follows `<setting or file>: <what is wrong>. <what to do>.`; commands print it as
    one line and exit with status 2."""


class Stopped(SystemExit):
    """A signal ended the work after everything was saved. Commands exit with 128 + `signal_number`.

    It is a `SystemExit`, so that `--multirun` stops as well instead of starting the next job.
    """

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(128 + signal_number)
        self.signal_number, self.message = signal_number, message
