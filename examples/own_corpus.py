"""A corpus reader: the lines of an .srt subtitle file.

PYTHONPATH=examples python train.py --config-dir examples/conf corpus=subtitles corpus.path=film.srt
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from clvp_train.corpus import LocalCorpus, Row
from clvp_train.corpus.base import read_lines

TIMES = re.compile(r"\d+:\d+:\d+,\d+ --> ")


@dataclass
class Subtitles(LocalCorpus):
    """Every caption of an .srt file, without audio; the id is the number of its first line."""

    path: str
    setting: ClassVar[str] = "path"  # which of its fields is the location of the corpus

    def _rows(self) -> Iterator[Row]:
        path, words, first = self._existing(), list[str](), 0
        for number, line in [*read_lines(path), (0, "\n")]:
            if line.strip() and not line.strip().isdecimal() and not TIMES.match(line):
                words, first = [*words, line.strip()], first or number
            elif words and not line.strip():
                yield Row(f"{path}, line {first}", f"{first:06d}", " ".join(words), None)
                words, first = [], 0
