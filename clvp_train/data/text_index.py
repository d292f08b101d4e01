"""Which pairs belong to which text. Shapes: N pairs, U distinct texts, B batch."""

import hashlib

import numpy as np
import pyarrow as pa

from clvp_train.corpus import text_key


class TextIndex:
    """The indices of the pairs of each distinct text. Takes 16 bytes of memory per pair.

    Args:
        indices_N: int64 indices of pairs, grouped by text.
        offsets: (U + 1,) int64; the pairs of text u are indices_N[offsets[u] : offsets[u + 1]].
    """

    def __init__(self, indices_N: np.ndarray, offsets: np.ndarray) -> None:
        self.indices_N, self.offsets = indices_N, offsets

    @classmethod
    def from_keys(cls, keys_N: np.ndarray) -> "TextIndex":
        """Groups pairs with equal keys. Texts are numbered by first appearance, and the pairs of a text keep their order."""
        order_N = np.argsort(keys_N, kind="stable")
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
        """The indices of one text's pairs; int64."""
        return self.indices_N[self.offsets[text] : self.offsets[text + 1]]

    def first(self) -> np.ndarray:
        """(U,) the index of each text's first pair."""
        return self.indices_N[self.offsets[:-1]]

    def sizes(self) -> np.ndarray:
        """(U,) the number of pairs of each text."""
        return np.diff(self.offsets)

    def subset(self, kept_N: np.ndarray) -> "TextIndex":
        """The index without the pairs for which `kept_N` is false. Each text must keep a pair."""
        kept = kept_N[self.indices_N]
        return TextIndex(
            self.indices_N[kept], np.concatenate([np.zeros(1, dtype=np.int64), kept.cumsum()])[self.offsets]
        )

    def pick(self, texts_B: np.ndarray, turns_B: np.ndarray) -> np.ndarray:
        """(B,) indices: for each text its pair number `turn`, modulo the number of its pairs."""
        starts_B = self.offsets[texts_B]
        return self.indices_N[starts_B + turns_B % (self.offsets[texts_B + 1] - starts_B)]


def text_hashes(texts: pa.Array) -> np.ndarray:
    """(N,) uint64 hash of each text's `corpus.text_key`. Among ten million texts the probability of any collision is 3e-6."""
    encoded = texts.dictionary_encode()  # hashes equal texts once
    digests = [hashlib.blake2b(text_key(text).encode(), digest_size=8) for text in encoded.dictionary.to_pylist()]
    hashes = np.frombuffer(b"".join(digest.digest() for digest in digests), dtype=np.uint64)
    return hashes[encoded.indices.to_numpy()]
