"""The demo with stored candidates, whose codes no Tortoise can decode."""

import gradio as gr
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clvp_train.demo.listening_test import ListeningTest
from clvp_train.demo.page import _Content, make_page
from clvp_train.demo.stored import StoredSession
from clvp_train.errors import UserError
from clvp_train.inference.reranker import Reranker
from clvp_train.metrics import TokenPairs
from clvp_train.models import CLVPConfig, CLVPModel
from clvp_train.pairs import MANIFEST, Manifest, write_manifest

ROWS = [
    {
        "input_ids": [number // 3 + 1, 2],
        "speech_ids": [number, 3, 4, 5],
        "finished": number != 1,
        "log_probability": -10.0,
    }
    for number in range(6)
] + [{"input_ids": [1, 2], "speech_ids": [99], "finished": True, "log_probability": -1.0}]


@pytest.fixture
def reranker():
    tower = {"hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLVPConfig(
        text_config=tower | {"vocab_size": 9}, speech_config=tower | {"vocab_size": 16}, projection_dim=8
    )
    return Reranker(CLVPModel(config))


@pytest.mark.parametrize("code_rate", [None, 12.5])
def test_table_of_stored_candidates(reranker, tmp_path, code_rate):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "candidates.parquet")
    if code_rate:
        write_manifest(tmp_path, Manifest("f", "corpus", "imported", 1, 9, 16, "", code_rate=code_rate))
    assert (tmp_path / MANIFEST).exists() == bool(code_rate)
    session = StoredSession(reranker, tmp_path)
    assert session.texts == ["tokens 1 2", "tokens 2 2"] and session.num_candidates == 3
    with gr.Blocks():
        content = _Content(session, tmp_path / "answers.csv")
    assert not (content.voice.visible or content.seed.visible or content.is_test.visible)
    changed = content.draw("tokens 1 2", "", 0, False, ListeningTest())
    shown = changed[content.table].data
    [ranking] = reranker.rank([[1, 2]], [[row["speech_ids"] for row in ROWS[:3]]])
    assert shown["score"].tolist() == [ranking.scores[index] for index in ranking.order]
    assert [word == "no" for word in shown["finished"]] == [index == 1 for index in ranking.order]
    assert shown["log p"].tolist() == [-2.5 if index == 1 else -2.0 for index in ranking.order]
    assert shown["seconds"].tolist() == [4 / 12.5 if code_rate else None] * 3
    assert changed[content.message] == ""
    reranker.token_pairs = TokenPairs({1: frozenset([3])}, limit=0.0)
    assert "unlike" in content.draw("tokens 1 2", "", 0, False, ListeningTest())[content.message]
    assert make_page(session, "unknown", tmp_path / "answers.csv").title == "CLVP"


def test_files_without_candidates_are_refused(reranker, tmp_path):
    with pytest.raises(UserError, match="candidates=.*no Parquet file"):
        StoredSession(reranker, tmp_path)
    pq.write_table(pa.Table.from_pylist(ROWS[6:]), tmp_path / "candidates.parquet")
    with pytest.raises(UserError, match="code 99"):
        StoredSession(reranker, tmp_path)
