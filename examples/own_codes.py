"""A source of speech codes: replace `codes_of` by your codec or speech language model.

PYTHONPATH=examples python train.py --config-dir examples/conf codes=letters
"""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from clvp_train.corpus import Split, Utterance
from clvp_train.pairs.sources import BadRows, CodeSource, OnCandidate, Rows, Utterances
from clvp_train.tortoise import FrozenTortoise


@dataclass(eq=False)
class LetterCodes(CodeSource):
    """Stands in for a codec: some codes per letter, the same in every recording."""

    codes_per_letter: int = 2
    _: KW_ONLY
    name: ClassVar[str] = "letters"  # in reports and folder names
    needs_audio: ClassVar[bool] = False
    has_quality: ClassVar[bool] = False

    def check(self, tortoise: FrozenTortoise) -> None:
        """Called first. Raise UserError if the source cannot work."""

    def inspect(self, tortoise: FrozenTortoise, number: int, utterance: Utterance) -> None:
        """Called for every utterance before any is encoded."""

    def settings(self) -> dict[str, Any]:
        """What determines the codes: with other settings, pairs get another folder."""
        return {"codes.codes_per_letter": self.codes_per_letter}

    def num_rows(self, utterance: Utterance, split: Split) -> int:
        return 1

    def encode(self, tortoise: FrozenTortoise, utterances: Utterances, bad: BadRows, on_candidate: OnCandidate) -> Rows:
        rows = list(self._encode(tortoise, utterances))
        for row in rows:
            on_candidate(len(row["speech_ids"]))
        return rows

    def _encode(self, tortoise: FrozenTortoise, utterances: Utterances) -> Iterator[dict[str, Any]]:
        for utterance, split in utterances:
            yield {
                "id": utterance.id,
                "text": utterance.text,
                "split": split,
                "input_ids": tortoise.tokenizer(utterance.text)["input_ids"],
                "speech_ids": self.codes_of(utterance.text, tortoise.num_speech_tokens),
                "candidate": 0,
                "voice": "letters",
                "finished": True,
            }

    def codes_of(self, text: str, num_codes: int) -> list[int]:
        """Codes from 0 to `num_codes` - 1."""
        return [ord(letter) * (place + 1) % num_codes for letter in text for place in range(self.codes_per_letter)]
