"""LJSpeech layout: `metadata.csv` (id|raw text|normalised text) and `wavs/<id>.wav`."""

from collections.abc import Iterator
from dataclasses import dataclass

from clvp_train.corpus.files import absolute, existing_file, existing_folder, read_lines
from clvp_train.corpus.utterance import Corpus, Row
from clvp_train.errors import UserError


@dataclass
class LJSpeech(Corpus):
    """Reads the normalised text where there is one, and the raw text elsewhere. Quotes mean nothing in this format.

    Attributes:
        root: the folder that holds `metadata.csv` and `wavs/`.
    """

    root: str

    @property
    def name(self) -> str:
        return absolute(self.root).name

    @property
    def source(self) -> str:
        return str(absolute(self.root))

    def _rows(self) -> Iterator[Row]:
        root = existing_folder(self.root, "corpus.root")
        metadata = existing_file(root / "metadata.csv", "corpus.root, the folder that holds metadata.csv and wavs/")
        for number, line in read_lines(metadata):
            if not line.strip():
                continue
            where = f"{metadata}, line {number}"
            fields = [field.strip() for field in line.split("|")]
            if len(fields) not in (2, 3):
                raise UserError(f"{where}: {len(fields)} fields, not 2 or 3: write id|raw text|normalised text")
            yield Row(where, fields[0], fields[-1] or fields[1], str(root / "wavs" / f"{fields[0]}.wav"))
