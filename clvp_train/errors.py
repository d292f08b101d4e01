"""What a user can cause and mend."""


class UserError(Exception):
    """Bad input or a bad setting. Its message is one line that names the culprit and the mend; commands print it without a
    traceback and exit with status 2."""


def check_number(setting: str, value: object, least: float, whole: bool = True) -> None:
    """Raises UserError if a setting is no number, or less than it may be."""
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not value >= least:
        raise UserError(f"{setting}={value}: set it to a {'whole ' if whole else ''}number, {least} or more")
