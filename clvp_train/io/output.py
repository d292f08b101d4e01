"""Standard output and standard error that end no run: what is only printed is not worth a training."""

import io
import sys
from typing import Any


class _Tolerant(io.FileIO):
    """Drops what cannot be written: the terminal is gone, the pipe is closed, the disk of the log is full."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(stream.fileno(), "w", closefd=False)
        self._stream = stream  # would close the file when it is deleted

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def tolerate_output() -> None:
    """Replaces `sys.stdout` and `sys.stderr` by streams to the same files that raise neither a UnicodeEncodeError, where the
    encoding of the terminal lacks a character, nor an OSError. Streams that are not files, as in a notebook, are left alone."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            stream.flush()
            file = io.BufferedWriter(_Tolerant(stream))
            is_flushed = stream.line_buffering or stream.write_through  # the latter by python -u
            setattr(sys, name, io.TextIOWrapper(file, stream.encoding, "replace", line_buffering=is_flushed))
