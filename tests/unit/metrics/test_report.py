import io
import json

import pytest
import torch
from rich.console import Console

from clvp_train.metrics import METRICS_FILE, print_report, retrieval, write_report


def test_the_file_holds_the_metrics_and_nothing_partial_stays(tmp_path):
    metrics = retrieval(torch.eye(3), torch.eye(3)) | {"checkpoint": "a/ä.ckpt"}
    path = write_report(metrics, tmp_path / "made" / "report")
    assert path.name == METRICS_FILE and json.loads(path.read_text()) == metrics
    assert [file.name for file in path.parent.iterdir()] == [METRICS_FILE]


def test_a_report_that_cannot_be_written_leaves_the_old_one_whole(tmp_path):
    write_report({"gallery": 1}, tmp_path)
    with pytest.raises(TypeError):
        write_report({"gallery": object()}, tmp_path)
    assert json.loads((tmp_path / METRICS_FILE).read_text()) == {"gallery": 1}


def test_the_table_shows_both_directions():
    text, speech = torch.tensor([[1.0, 0.0], [0.9, 0.1]]), torch.eye(2)
    console = Console(file=io.StringIO(), width=100)
    print_report(retrieval(text, speech), console)
    shown = " ".join(console.file.getvalue().split())
    assert "R@1 │ 0.500 │ 1.000" in shown and "among 2 sentences" in shown and "0.5000" in shown
