import hashlib
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest

from clvp_train.corpus import text_key
from clvp_train.data.text_index import TextIndex, text_hashes


def naive(keys):
    indices = defaultdict(list)
    for index, key in enumerate(keys):
        indices[key].append(index)
    return list(indices.values())


@pytest.mark.parametrize("num_texts", [1, 3, 40, 5000])
def test_texts_are_numbered_as_they_first_appear(num_texts):
    keys_N = np.random.default_rng(num_texts).integers(0, 2**64, num_texts, dtype=np.uint64)
    keys_N = np.random.default_rng(0).choice(keys_N, 3000)
    text_index = TextIndex.from_keys(keys_N)
    assert [text_index[text].tolist() for text in range(len(text_index))] == naive(keys_N.tolist())
    assert text_index.indices_N.dtype == text_index.offsets.dtype == np.int64


def test_without_pairs_there_are_no_texts():
    assert len(TextIndex.from_keys(np.empty(0, dtype=np.uint64))) == 0
    assert text_hashes(pa.array([], pa.string())).tolist() == []


def test_turns_cycle_through_the_pairs_of_each_text():
    text_index = TextIndex.from_keys(np.array([5, 5, 9, 5, 9, 1], dtype=np.uint64))  # [0, 1, 3], [2, 4], [5]
    picked = [text_index.pick(np.array([2, 0, 1]), np.array([turn] * 3)).tolist() for turn in range(4)]
    assert picked == [[5, 0, 2], [5, 1, 4], [5, 3, 2], [5, 0, 4]]


def test_indices_beyond_32_bits_are_kept():
    """Three texts of 2³¹ pairs each, without the pairs."""
    far = 2**31
    text_index = TextIndex(np.broadcast_to(np.int64(far), 3 * far), np.array([0, far, 2 * far, 3 * far]))
    assert text_index.pick(np.array([2]), np.array([far - 1])).tolist() == [far] and len(text_index[1]) == far


def test_a_hash_is_that_of_the_key_of_the_text():
    texts = ["Hello, world!", "hello world", "Grüße", "Hello, world!", "?!", "GRÜSSE"]
    hashes = text_hashes(pa.array(texts))
    assert hashes.dtype == np.uint64
    assert hashes.tobytes() == b"".join(
        hashlib.blake2b(text_key(text).encode(), digest_size=8).digest() for text in texts
    )
    assert naive(hashes.tolist()) == [[0, 1, 3], [2, 5], [4]]
