"""What is printed ends no run: characters that a terminal lacks, closed pipes, terminals that are gone, full disks."""

import io
import os
import sys
from pathlib import Path

import pytest
from rich.progress import Progress

from clvp_train.io.output import tolerate_output

TEXT = "3 × real time – “Jürgen”, データ, \udce9\n"


@pytest.fixture
def stdout(monkeypatch, tmp_path):
    """Standard output to a file, in an encoding."""

    def open_(encoding, file=tmp_path / "log"):
        monkeypatch.setattr(sys, "stdout", file.open("w", encoding=encoding))
        tolerate_output()
        return file

    return open_


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r", "cp437", "shift_jis", "utf-8"])
def test_an_encoding_that_lacks_characters(stdout, encoding):
    file = stdout(encoding)
    print(TEXT)
    with Progress() as progress:
        for _ in progress.track([1, 2], description=TEXT):
            print("é")
    sys.stdout.flush()
    assert file.read_text(encoding=encoding).startswith("3 ") and "?" in file.read_text(encoding=encoding)


def test_a_full_disk(stdout):
    stdout("utf-8", Path("/dev/full"))
    print(TEXT, flush=True)


def test_a_closed_pipe(monkeypatch):
    read, write = os.pipe()
    monkeypatch.setattr(sys, "stderr", os.fdopen(write, "w", 1))
    tolerate_output()
    os.close(read)
    print(TEXT, file=sys.stderr)


def test_other_streams_are_left_alone(monkeypatch):
    own = io.StringIO()
    monkeypatch.setattr(sys, "stdout", own)
    tolerate_output()
    assert sys.stdout is own
