import io
import json

import pytest
import torch
from rich.console import Console

from clvp_train.metrics import retrieval_ranks, retrieval_summary
from clvp_train.report import METRICS_FILE, FigureData, Page, draw, print_table, write_metrics, write_report
from clvp_train.report.tables import Table
from clvp_train.report.tables import retrieval as retrieval_table


def make_page():
    draw_ = torch.Generator().manual_seed(0)
    text, speech = (torch.nn.functional.normalize(torch.randn(40, 8, generator=draw_), dim=1) for _ in range(2))
    pictures = FigureData.from_retrieval(text, speech, retrieval_ranks(text, speech))
    table = Table("Ta|ble <1>", ["", "a"], [["x|y", "<b>1</b>"]], "A note & more.")
    facts = {"checkpoint": "a/ä.ckpt"}
    return Page("A title", facts, [table], draw(pictures), {"R@1": "0.5"}, {"a part": "why"}, {"other": "b/index.html"})


@pytest.fixture
def page():
    return make_page()


def test_all_of_a_report_is_written_and_nothing_partial_stays(page, tmp_path):
    metrics = retrieval_summary(retrieval_ranks(torch.eye(3), torch.eye(3))) | {"checkpoint": "a/ä.ckpt"}
    path = write_report(page, tmp_path / "made" / "report")
    write_metrics(metrics, path.parent)
    assert json.loads((path.parent / METRICS_FILE).read_text()) == metrics
    files = {file.relative_to(path.parent).as_posix() for file in path.parent.rglob("*") if file.is_file()}
    assert files == {"index.html", "metrics.json", "report.md", *(f"figures/{name}.svg" for name in page.figures)}


def test_metrics_that_cannot_be_written_leave_the_old_ones_whole(tmp_path):
    write_metrics({"gallery": 1}, tmp_path)
    with pytest.raises(TypeError):
        write_metrics({"gallery": object()}, tmp_path)
    assert json.loads((tmp_path / METRICS_FILE).read_text()) == {"gallery": 1}


def test_the_page_needs_nothing_beside_it_and_shows_everything(page, tmp_path):
    text = write_report(page, tmp_path).read_text()
    for shown in (
        "A title",
        "a/ä.ckpt",
        "Ta|ble &lt;1&gt;",
        "&lt;b&gt;1&lt;/b&gt;",
        "A note &amp; more.",
        "a part: why",
    ):
        assert shown in text, shown
    assert text.count("<svg") == len(page.figures) > 4
    for outside in ("src=", "<script", "@import", "<link", "url(http"):
        assert outside not in text, outside
    assert 'href="b/index.html"' in text and 'name="viewport"' in text and "prefers-color-scheme: dark" in text


def test_markdown_has_the_same_tables_and_links_its_figures(page, tmp_path):
    write_report(page, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "|  | a |\n| --- | --- |\n| x\\|y | <b>1</b> |\n\nA note & more." in text
    for name in page.figures:
        assert f"(figures/{name}.svg)" in text and (tmp_path / f"figures/{name}.svg").exists()


def test_the_same_report_has_the_same_bytes(tmp_path):
    pages = [write_report(make_page(), tmp_path / name).read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_a_terminal_shows_both_directions_with_their_intervals():
    text, speech = torch.tensor([[1.0, 0.0], [0.9, 0.1]]), torch.eye(2)
    metrics = retrieval_summary(retrieval_ranks(text, speech)) | {
        "intervals": {"text_to_speech": {"R@1": [0.25, 0.75]}}
    }
    console = Console(file=io.StringIO(), width=100)
    print_table(retrieval_table(metrics), console)
    shown = " ".join(console.file.getvalue().split())
    assert "R@1 │ 0.500 (0.250 to 0.750) │ 1.000" in shown and "among 2 sentences" in shown and "0.5000" in shown
