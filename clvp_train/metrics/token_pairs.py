"""Texts unlike those of the training, by pairs of neighbouring tokens. Shapes: T text length.

The score does not reveal them: it compares codes with any text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from clvp_train.errors import UserError
from clvp_train.io.digests import read_sealed_json, sealed_json

TOKEN_PAIRS_FILE = "token_pairs.json"  # next to the weights of a model
MAX_PAIRS = 500_000  # about 3 MB; a larger vocabulary has too many pairs to tell much
PERCENTILE = 99


@dataclass(frozen=True)
class TokenPairs:
    """The pairs of neighbouring tokens that occur in training texts.

    Attributes:
        seen: for each token those that have followed it.
        limit: the share of unseen pairs that 1% of held-out texts exceed.
    """

    seen: dict[int, frozenset[int]]
    limit: float

    def unseen_share(self, ids_T: Sequence[int]) -> float:
        """Returns the share of the pairs of neighbouring tokens that occur in no training text; 0 for a single token."""
        return _unseen_share(self.seen, ids_T)

    def is_unfamiliar(self, ids_T: Sequence[int]) -> bool:
        """Whether a text is unlike those of the training: more of its pairs are unseen than of 99% of held-out texts."""
        return self.unseen_share(ids_T) > self.limit

    def write(self, folder: Path) -> None:
        """Writes the file next to the weights of a model."""
        seen = {str(first): sorted(followers) for first, followers in sorted(self.seen.items())}
        text = sealed_json({"limit": self.limit, "seen": seen}, separators=(",", ":"))
        (folder / TOKEN_PAIRS_FILE).write_text(text + "\n")


def count_token_pairs(train: Iterable[Sequence[int]], held_out: Iterable[Sequence[int]]) -> TokenPairs | None:
    """Returns the pairs in training texts; None if there are too many of them, or no held-out texts.

    Args:
        train, held_out: (T,) token ids of each text.
    """
    seen, size = dict[int, set[int]](), 0
    for ids_T in train:
        for first, second in pairwise(ids_T):
            followers = seen.setdefault(first, set())
            size += second not in followers
            followers.add(second)
        if size > MAX_PAIRS:
            return None
    frozen = {first: frozenset(followers) for first, followers in seen.items()}
    shares = [_unseen_share(frozen, ids_T) for ids_T in held_out]
    return TokenPairs(frozen, float(np.percentile(shares, PERCENTILE))) if shares else None


def read_token_pairs(folder: Path) -> TokenPairs | None:
    """Returns the pairs next to a model; None if there are none. Raises UserError if the file is damaged."""
    file = folder / TOKEN_PAIRS_FILE
    try:
        values = read_sealed_json(file.read_bytes())
        seen = {int(first): frozenset(map(int, followers)) for first, followers in values["seen"].items()}
        return TokenPairs(seen, float(values["limit"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file}: damaged ({error!r}). Restore it, or delete it: unfamiliar texts are then not marked."
        ) from None


def _unseen_share(seen: dict[int, frozenset[int]], ids_T: Sequence[int]) -> float:
    unseen = [second not in seen.get(first, ()) for first, second in pairwise(ids_T)]
    return float(np.mean(unseen)) if unseen else 0.0
