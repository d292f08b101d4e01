"""Which split a text belongs to, decided by the text alone, and a corpus's fingerprint."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from clvp_train.corpus.utterance import Utterance, clean_text
from clvp_train.errors import UserError

Split = Literal["train", "val", "test"]


class _Kept(dict[int, str]):
    """What `text_key` makes of a character, looked up once for each that occurs; five times as fast as asking every time."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        is_space = char.isspace() or category == "Pd"
        is_dropped = category[0] == "P" or category in ("Cc", "Cf")
        return self.setdefault(code, " " if is_space else "" if is_dropped else char)


_KEPT = _Kept()


def text_key(text: str) -> str:
    """What two texts share when they say the same but for case, punctuation, width and spacing: NFKC, case-folded,
    dashes made spaces, other punctuation, control and format characters removed, whitespace collapsed. Letters, marks,
    digits and symbols of any script stay. A text of punctuation alone is its own key."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.translate(_KEPT).split()) or clean_text(text)


def split_of(text: str, test_percent: float, val_percent: float) -> Split:
    """The split of a text: the same on every machine, for ever, whatever else the corpus holds; texts with one
    `text_key` are never in two splits. The test share is cut first, so that another `val_percent` moves no text into or
    out of it, and a larger `test_percent` only adds to it.

    Args:
        text: the transcript.
        test_percent: expected share of distinct texts in "test", 0 to 100.
        val_percent: expected share in "val"; both together at most 100.

    Raises:
        UserError: a share is negative, or both together exceed 100.
    """
    if not (test_percent >= 0 and val_percent >= 0 and test_percent + val_percent <= 100):
        raise UserError(
            f"test_percent={test_percent} and val_percent={val_percent} are no shares of a corpus: set both to 0 or "
            "more, and to 100 or less together"
        )
    digest = hashlib.blake2b(text_key(text).encode(), digest_size=8).digest()
    position = 100 * int.from_bytes(digest, "big") / 2**64
    if position < test_percent:
        return "test"
    return "val" if position < test_percent + val_percent else "train"


def fingerprint(utterances: Iterable[Utterance]) -> str:
    """32 hex digits over ids, texts, speakers and audio, in order. An audio file counts by its size, which is quick to
    read and the same on every machine (path and time are not); audio bytes count in full. So an edit that keeps a
    file's exact size goes unseen, and a corpus of files differs from the same corpus packed as bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for utterance in utterances:
        audio: object = utterance.audio
        if isinstance(audio, bytes):
            audio = hashlib.blake2b(audio, digest_size=16).hexdigest()
        elif isinstance(audio, str):
            audio = Path(audio).stat().st_size
        digest.update(json.dumps([utterance.id, utterance.text, utterance.speaker, audio]).encode() + b"\n")
    return digest.hexdigest()
