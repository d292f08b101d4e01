"""The telephone prompts of Debian's Asterisk packages: 8 kHz speech of one voice, Allison Smith, under CC BY-SA 3.0."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from clvp_train.corpus.files import absolute, read_lines
from clvp_train.corpus.utterance import Corpus, Row
from clvp_train.errors import UserError

_STAGE_DIRECTION = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")


@dataclass
class Asterisk(Corpus):
    """Reads `id: text` lines. What stands in brackets is not said and is left out; lines that hold nothing else (beeps,
    monkeys, silence), and lines without a wav, are skipped.

    Attributes:
        root: the folder of wavs.
        transcripts: the list of prompts, plain or .gz.
        speaker: what to call the voice.
    """

    root: str = "/usr/share/asterisk/sounds/en_US_f_Allison"
    transcripts: str = "/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    speaker: str = "allison"

    @property
    def name(self) -> str:
        return f"Asterisk prompts ({absolute(self.root).name})"

    @property
    def source(self) -> str:
        return str(absolute(self.root))

    def _rows(self) -> Iterator[Row]:
        root, transcripts = absolute(self.root), absolute(self.transcripts)
        for path, setting in ((root, "corpus.root"), (transcripts, "corpus.transcripts")):
            if not path.exists():
                raise UserError(
                    f"{path} is missing: run `apt-get install asterisk-core-sounds-en asterisk-core-sounds-en-wav`, "
                    f"or set {setting}"
                )
        for number, line in read_lines(transcripts):
            if not line.strip() or line.startswith(";"):
                continue
            where = f"{transcripts}, line {number}"
            id_, colon, text = line.partition(":")
            if not colon:
                raise UserError(f"{where}: no colon: write `id: text`")
            wav = root / f"{id_.strip()}.wav"
            said = _STAGE_DIRECTION.sub(" ", text)
            only_directions = text.strip() and not said.strip()
            if wav.is_file() and not only_directions:
                yield Row(where, id_, said, str(wav), self.speaker)
