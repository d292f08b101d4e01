import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from clvp_train.corpus import text_key
from clvp_train.data.dataset import PairDataset, RaggedColumn
from clvp_train.data.sampler import EpochOrder
from clvp_train.data.text_index import text_hashes
from clvp_train.pairs import SCHEMA, arrow_copies, read_pairs


def anonymous_memory():
    """Bytes of this process that are not backed by a file."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_holds_its_rows_in_order(write_pairs, split):
    folder = write_pairs(extra=("TRAIN 3?",))
    rows = [row for row in read_pairs(folder).to_pylist() if row["split"] == split]
    pairs = PairDataset(arrow_copies(folder), split)
    assert len(pairs) == len(rows) > 0
    for index, row in enumerate(rows):
        pair = pairs[index]
        assert pair.pop("finished") is row["finished"]
        assert {name: ids.tolist() for name, ids in pair.items()} == {
            name: row[name] for name in ("input_ids", "speech_ids")
        }
        assert {ids.dtype for ids in pair.values()} == {torch.int64}
    assert pairs.keys_N.tolist() == text_hashes(pa.array([row["text"] for row in rows])).view(np.int64).tolist()


def test_texts_and_candidates_equal_those_of_a_dictionary(write_pairs):
    folder = write_pairs(train=50, extra=("TRAIN 3?", "new", "train  49!", "New."))
    indices = {}
    texts = [row["text"] for row in read_pairs(folder).to_pylist() if row["split"] == "train"]
    for index, text in enumerate(texts):
        indices.setdefault(text_key(text), []).append(index)
    text_index, naive = PairDataset(arrow_copies(folder), "train").text_index, list(indices.values())
    assert [text_index[text].tolist() for text in range(len(text_index))] == naive
    order = EpochOrder(text_index, 9)
    for epoch in range(3):
        order.set_epoch(epoch)
        texts = np.random.default_rng((9, epoch)).permutation(len(naive)).tolist()
        assert order.indices(order.texts()) == [naive[text][(epoch + text) % len(naive[text])] for text in texts]


def test_a_column_is_read_across_chunks_and_slices():
    lists = [[number] * (number % 4) for number in range(30)]
    column = pa.chunked_array([pa.array(part, pa.list_(pa.int32())) for part in (lists[:9], [], lists[9:])])
    assert [ids.tolist() for ids in map(RaggedColumn(column).__getitem__, range(30))] == lists
    assert [ids.tolist() for ids in map(RaggedColumn(column.slice(5, 20)).__getitem__, range(20))] == lists[5:25]


def test_a_pair_can_be_modified_without_changing_the_data(write_pairs):
    pairs = PairDataset(arrow_copies(write_pairs()), "train")
    before = pairs[3]["speech_ids"].clone()
    pairs[3]["speech_ids"].zero_()
    assert torch.equal(pairs[3]["speech_ids"], before)


def test_a_pickle_holds_no_ids_and_maps_the_files_again(write_pairs):
    folder = write_pairs(train=400, candidates=5)
    pairs = PairDataset(arrow_copies(folder), "train")
    pickled = pickle.dumps(pairs)
    assert len(pickled) < 33 * len(pairs) + 10_000 < read_pairs(folder, ["input_ids", "speech_ids"]).nbytes
    copy = pickle.loads(pickled)
    assert all(torch.equal(copy[index]["speech_ids"], pairs[index]["speech_ids"]) for index in range(len(pairs)))
    assert copy.text_index[7].tolist() == pairs.text_index[7].tolist()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
def test_an_epoch_of_large_pairs_is_not_held_in_memory(tmp_path):
    """64 MB of codes are read, but only the current rows are in memory."""
    size = 4000
    speech_ids = pa.ListArray.from_arrays(
        np.arange(0, size * size + 1, size, dtype=np.int32), np.zeros(size * size, dtype=np.int32)
    )
    columns = {name: pa.nulls(size, SCHEMA.field(name).type) for name in SCHEMA.names}
    columns |= {"speech_ids": speech_ids}
    columns |= {"input_ids": pa.array([[1]] * size, pa.list_(pa.int32()))}
    columns |= {"split": pa.array(["train"] * size), "text": pa.array([f"text {number}" for number in range(size)])}
    with pa.OSFile(str(tmp_path / "pairs.arrow"), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_table(pa.table(columns, schema=SCHEMA), max_chunksize=100)
    del columns, speech_ids
    pa.default_memory_pool().release_unused()
    before = anonymous_memory()
    pairs = PairDataset([tmp_path / "pairs.arrow"], "train")
    assert sum(pair["speech_ids"].numel() for pair in pairs) == size * size
    assert anonymous_memory() - before < size * size  # a quarter of the codes' bytes
