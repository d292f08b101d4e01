"""Which pairs are candidates of one text. Shapes: N pairs, U distinct texts."""

import hashlib

import numpy as np
import pyarrow as pa

from clvp_train.corpus import text_key


class Candidates:
    """Per distinct text, the places of its pairs: 16 bytes a pair, whatever the texts.

    Args:
        places_N: int64, those of the first text first.
        offsets: (U + 1,) int64; text u's places are places_N[offsets[u] : offsets[u + 1]].
    """

    def __init__(self, places_N: np.ndarray, offsets: np.ndarray) -> None:
        self.places_N, self.offsets = places_N, offsets

    @classmethod
    def of_keys(cls, keys_N: np.ndarray) -> "Candidates":
        """Pairs with equal keys are of one text. Texts are numbered as they first appear, and keep the order of their pairs."""
        order_N = np.argsort(keys_N, kind="stable")  # by key, within one as they appear
        sorted_N = keys_N[order_N]
        is_first_N = np.ones(len(keys_N), dtype=bool)
        np.not_equal(sorted_N[1:], sorted_N[:-1], out=is_first_N[1:])
        del sorted_N
        starts_U = np.flatnonzero(is_first_N)
        lengths_U = np.diff(starts_U, append=len(keys_N))
        by_appearance_U = np.argsort(order_N[starts_U])
        starts_U, lengths_U = starts_U[by_appearance_U], lengths_U[by_appearance_U]
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths_U)])
        source_N = np.repeat(starts_U - offsets[:-1], lengths_U)
        source_N += np.arange(len(keys_N))
        return cls(order_N[source_N], offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, text: int) -> np.ndarray:
        """The places of one text's pairs; int64."""
        return self.places_N[self.offsets[text] : self.offsets[text + 1]]

    def first(self) -> np.ndarray:
        """(U,) the place of each text's first pair."""
        return self.places_N[self.offsets[:-1]]

    def sizes(self) -> np.ndarray:
        """(U,) how many pairs each text has."""
        return np.diff(self.offsets)

    def pick(self, texts_B: np.ndarray, turns_B: np.ndarray) -> np.ndarray:
        """(B,) places: of each text the candidate whose turn it is, from the first again after the last."""
        starts_B = self.offsets[texts_B]
        return self.places_N[starts_B + turns_B % (self.offsets[texts_B + 1] - starts_B)]


def text_hashes(texts: pa.Array) -> np.ndarray:
    """(N,) uint64 of each text's `corpus.text_key`, computed once for texts that are equal. Among ten million texts the chance
    that any two share one is 3e-6."""
    encoded = texts.dictionary_encode()
    digests = [hashlib.blake2b(text_key(text).encode(), digest_size=8) for text in encoded.dictionary.to_pylist()]
    hashes = np.frombuffer(b"".join(digest.digest() for digest in digests), dtype=np.uint64)
    return hashes[encoded.indices.to_numpy()]
