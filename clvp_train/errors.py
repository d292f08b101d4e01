"""The one exception for what a user can cause and mend."""


class UserError(Exception):
    """Bad input or a bad setting. Its message is one line that names the culprit and the mend; commands print it without a
    traceback and exit with status 2."""
