"""The split of a text, which depends on the text alone, and the fingerprint of a corpus."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from clvp_train.corpus.base import Utterance, clean_text
from clvp_train.errors import UserError

Split = Literal["train", "val", "test"]


class _Normalised(dict[int, str]):
    """The replacement of each character in `text_key`, computed once per character: five times as fast as without."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        is_space = char.isspace() or category == "Pd"
        is_dropped = category[0] == "P" or category in ("Cc", "Cf")
        return self.setdefault(code, " " if is_space else "" if is_dropped else char)


_NORMALISED = _Normalised()


def text_key(text: str) -> str:
    """A key that is equal for texts which differ only in case, punctuation, character width and spacing.

    The text is NFKC-normalised and case-folded; dashes become spaces; other punctuation, control and format characters are
    removed; whitespace is collapsed. Letters, marks, digits and symbols of any script stay. A text of punctuation only is its
    own key.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.translate(_NORMALISED).split()) or clean_text(text)


def text_hash(text: str) -> int:
    """A 64-bit hash of the text's `text_key`, the same on every machine. Among ten million texts the probability of any
    collision is 3e-6."""
    return int.from_bytes(hashlib.blake2b(text_key(text).encode(), digest_size=8).digest(), "big")


def split_of(text: str, test_percent: float, val_percent: float) -> Split:
    """The split of a text, by a hash of its `text_key`.

    It is the same on every machine and independent of the other texts of a corpus; texts with the same key are in the same
    split. The test share is cut first: changing `val_percent` does not change the test split, and a larger `test_percent` only
    adds texts to it.

    Args:
        text: the transcript.
        test_percent: expected share of distinct texts in "test", 0 to 100.
        val_percent: expected share in "val"; both together at most 100.

    Raises:
        UserError: a share is negative, or both together exceed 100.
    """
    return split_of_hash(text_hash(text), test_percent, val_percent)


def split_of_hash(hash_: int, test_percent: float, val_percent: float) -> Split:
    """`split_of` a text with this `text_hash`."""
    if not (test_percent >= 0 and val_percent >= 0 and test_percent + val_percent <= 100):
        raise UserError(
            f"split.test_percent={test_percent}, split.val_percent={val_percent}: not percentages of a corpus. Set both to at "
            "least 0 and their sum to at most 100."
        )
    position = 100 * hash_ / 2**64
    if position < test_percent:
        return "test"
    return "val" if position < test_percent + val_percent else "train"


def fingerprint(utterances: Iterable[Utterance]) -> str:
    """A digest of ids, texts, speakers and audio in order, as 32 hex digits.

    An audio file counts by its size, which is quick to read and the same on every machine (unlike path and time); audio bytes
    count in full. So an edit that keeps the size of a file is not detected, and a corpus of files differs from the same corpus
    stored as bytes.
    """
    digest = hashlib.blake2b(digest_size=16)
    for utterance in utterances:
        audio: object = utterance.audio
        if isinstance(audio, bytes):
            audio = hashlib.blake2b(audio, digest_size=16).hexdigest()
        elif isinstance(audio, str):
            audio = Path(audio).stat().st_size
        digest.update(json.dumps([utterance.id, utterance.text, utterance.speaker, audio]).encode() + b"\n")
    return digest.hexdigest()
