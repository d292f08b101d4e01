import io
import json

import pytest
import torch
from rich.console import Console

from clvp_train.metrics import retrieval_ranks, retrieval_summary
from clvp_train.report import (
    METRICS_FILE,
    FigureData,
    Page,
    Sample,
    Table,
    draw,
    print_summary,
    print_table,
    read_metrics,
    write_metrics,
    write_report,
)


def make_page():
    draw_ = torch.Generator().manual_seed(0)
    text, speech = (torch.nn.functional.normalize(torch.randn(40, 8, generator=draw_), dim=1) for _ in range(2))
    data = FigureData.from_retrieval(text, speech, retrieval_ranks(text, speech))
    data.history = [{"step": 0, "train/loss": 3.0}, {"step": 9, "train/loss": 1.0, "val/R@1": 0.5}]
    table = Table("Ta|ble <1>", ["", "a"], [["x|y", "<b>1</b>"]], "A note & more.")
    facts = {"checkpoint": "a/ä.ckpt"}
    parts = {"left_out": {"a part": "why"}, "links": {"other": "b/index.html"}, "summary": "In short."}
    samples = [Sample("<A text>", "anna", {"drawn first": b"mp3"})]
    return Page("A title", facts, [table], draw(data), {"R@1": "0.5"}, samples=samples, **parts)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    page = make_page()
    path = write_report(page, tmp_path_factory.mktemp("made") / "report")
    return page, path


def test_html_is_complete_and_self_contained(written):
    page, path = written
    text = path.read_text()
    parts = [
        "A title",
        "a/ä.ckpt",
        "Ta|ble &lt;1&gt;",
        "&lt;b&gt;1&lt;/b&gt;",
        "A note &amp; more.",
        "a part: why",
        "<p>In short.</p>",
        '<a href="#table-1">',
        'id="table-1"',
        "&lt;A text&gt;",
        'src="data:audio/mpeg;base64,bXAz"',
        "Learning curve",
    ]
    for part in [*parts, 'href="b/index.html"', 'name="viewport"', "prefers-color-scheme: dark"]:
        assert part in text, part
    assert text.count("<svg") == len(page.figures) > 4
    for outside in ('src="http', "<script", "@import", "<link", "url(http"):
        assert outside not in text, outside


def test_markdown_has_the_same_tables_and_links_its_figures(written):
    page, path = written
    text = path.with_name("report.md").read_text()
    assert "|  | a |\n| --- | --- |\n| x\\|y | &lt;b&gt;1&lt;/b&gt; |\n\nA note &amp; more." in text
    assert text.splitlines()[4] == "In short."
    assert all(f"(figures/{name}.svg)" in text for name in page.figures)
    files = {file.relative_to(path.parent).as_posix() for file in path.parent.rglob("*") if file.is_file()}
    assert files == {"index.html", "report.md", *(f"figures/{name}.svg" for name in page.figures)}


def test_the_same_report_has_the_same_bytes(written, tmp_path):
    assert write_report(make_page(), tmp_path).read_bytes() == written[1].read_bytes()


def test_metrics_are_written_atomically(tmp_path):
    metrics = retrieval_summary(retrieval_ranks(torch.eye(3), torch.eye(3))) | {"checkpoint": "a/ä.ckpt"}
    write_metrics(metrics, tmp_path)
    with pytest.raises(TypeError):
        write_metrics({"gallery": object()}, tmp_path)
    assert read_metrics(tmp_path) == metrics and [file.name for file in tmp_path.iterdir()] == [METRICS_FILE]


def test_metrics_of_an_earlier_version_are_read(tmp_path):
    old = {"faults": [{"fault": "drop", "rate": 0.5}], "scores": {"faulty": {"auc": 0.7}}}
    (tmp_path / METRICS_FILE).write_text(json.dumps(old))
    new = {"perturbations": [{"perturbation": "drop", "rate": 0.5}], "scores": {"perturbed": {"auc": 0.7}}}
    assert read_metrics(tmp_path) == new


def test_the_terminal_shows_retrieval_and_a_summary():
    text, speech = torch.tensor([[1.0, 0.0], [0.9, 0.1]]), torch.eye(2)
    metrics = retrieval_summary(retrieval_ranks(text, speech))
    metrics |= {"intervals": {"text_to_speech": {"R@1": [0.25, 0.75]}}, "left_out": {"re-ranking": "why"}}
    rates = {"drop_words": 0.9, "babble": 0.6, "swap": 0.75}
    metrics["perturbations"] = [{"perturbation": name, "share": 0.5, "rate": rate} for name, rate in rates.items()]
    metrics["rerank"] = {
        "finished": {name: {"value": value} for name, value in zip(("random", "pick", "best"), rates.values())}
    }
    console = Console(file=io.StringIO(), width=100)
    print_table(Table("[/a]", ["[/b]"], [["[red]c"]]), console)  # no markup
    assert all(name in console.file.getvalue() for name in ("[/a]", "[/b]", "[red]c"))
    print_summary(metrics, console)
    shown = " ".join(console.file.getvalue().split())
    assert "R@1 │ 0.500 (0.250 to 0.750) │ 1.000" in shown and "among 2 sentences" in shown and "0.5000" in shown
    assert "mean rate 0.750 (chance 0.5), best drop words 50% 0.900, worst babble 50% 0.600" in shown
    assert "re-ranking, finished: random 0.900 → highest score 0.600 (best 0.750)" in shown
    assert "not measured: re-ranking (why)" in shown
