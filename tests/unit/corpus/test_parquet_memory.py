"""A Parquet corpus larger than memory is read as a stream: a page or a row group is held, never the file."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clvp_train.corpus import ManifestCorpus

ROWS, BYTES = 640, 100_000


@pytest.mark.parametrize("rows_a_group", [ROWS, 64], ids=["one row group", "ten row groups"])
def test_no_more_than_a_part_is_held(tmp_path, rows_a_group):
    table = pa.table({"audio": [os.urandom(BYTES) for _ in range(ROWS)], "text": [f"text {n}" for n in range(ROWS)]})
    pages = {"write_batch_size": 64, "use_dictionary": False}  # 64 rows each, not the default 1024
    pq.write_table(table, tmp_path / "corpus.parquet", row_group_size=rows_a_group, **pages)
    del table
    before, most = pa.total_allocated_bytes(), 0
    for utterance in ManifestCorpus(str(tmp_path / "corpus.parquet")):
        assert len(utterance.audio) == BYTES
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < ROWS * BYTES / 2
