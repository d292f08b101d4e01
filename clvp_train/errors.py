"""What a user can cause and mend."""


class UserError(Exception):
    """Bad input or a bad setting. Its message is one line that names the culprit and the mend; commands print it without a
    traceback and exit with status 2."""


class Stopped(Exception):
    """A signal has ended the work, and nothing of it is lost. Commands exit with 128 + `signal_number`."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def check_number(setting: str, value: object, least: float, whole: bool = True) -> None:
    """Raises UserError if a setting is no number, or less than it may be."""
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not value >= least:
        raise UserError(f"{setting}={value}: set it to a {'whole ' if whole else ''}number, {least} or more")
