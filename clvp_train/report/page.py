"""A report as files: one self-contained HTML page, Markdown with its figures, and the metrics as JSON."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import jinja2
from matplotlib.figure import Figure

from clvp_train.io import write_text
from clvp_train.io.digests import read_sealed_json, sealed_json
from clvp_train.io.sanitize import escape_markdown
from clvp_train.metrics import WRONG_VOICE
from clvp_train.report.figure_data import FigureData
from clvp_train.report.figures import CAPTIONS, draw, svg
from clvp_train.report.reranking import worth
from clvp_train.report.table import Metrics, Table, table_lines
from clvp_train.report.tables import comparison, headline, tables

TEMPLATE = Path(__file__).with_name("template.html")
METRICS_FILE, PAGE_FILE, MARKDOWN_FILE, FIGURES = "metrics.json", "index.html", "report.md", "figures"


@dataclass(frozen=True)
class Sample:
    """Candidates of one text to listen to."""

    text: str
    voice: str
    clips: dict[str, bytes]  # how it was picked: audio as MP3


@dataclass(frozen=True)
class Page:
    """The contents of `index.html` and `report.md`."""

    title: str
    facts: dict[str, str]  # what was evaluated, on what
    tables: Sequence[Table]
    figures: dict[str, tuple[str, Figure]] = field(default_factory=dict)  # name: title and figure
    headline: dict[str, str] = field(default_factory=dict)  # the most important numbers
    left_out: dict[str, str] = field(default_factory=dict)  # part: why it is not measured
    links: dict[str, str] = field(default_factory=dict)  # to other reports
    summary: str = ""  # a paragraph
    samples: Sequence[Sample] = ()  # in `index.html` only


def evaluation_page(
    metrics: Metrics, figure_data: FigureData, facts: Mapping[str, str] | None = None, samples: Sequence[Sample] = ()
) -> Page:
    """Returns the page of one checkpoint.

    Args:
        metrics: of `evaluation.evaluate_model`, with the facts that `evaluate.py` adds.
        figure_data: of the same evaluation.
        facts: more about the checkpoint and this evaluation, such as the date.
        samples: candidates to listen to.
    """
    return Page(
        title="CLVP evaluation",
        facts=_facts(metrics) | dict(facts or {}),
        samples=samples,
        headline=headline(metrics),
        tables=tables(metrics),
        figures=draw(figure_data),
        left_out=metrics["left_out"],
        summary=worth(metrics),
    )


def comparison_page(checkpoints: dict[str, str], metrics: Metrics, rows: Sequence[Metrics]) -> Page:
    """Returns the page that compares checkpoints, by their short names.

    Args:
        checkpoints: short name: full name.
        metrics: of one of them.
        rows: of `evaluation.compare`.
    """
    names = "; ".join(f"{short}: {name}" for short, name in checkpoints.items())
    return Page(
        title="Comparison of checkpoints",
        facts=_facts(metrics) | {"checkpoint": names},
        tables=[comparison(list(checkpoints), rows)],
        links={short: f"{short}/{PAGE_FILE}" for short in checkpoints},
    )


def write_report(page: Page, folder: Path) -> Path:
    """Writes `index.html`, `report.md` and the figures, each atomically. Returns the path of `index.html`."""
    drawn = {name: svg(figure) for name, (_, figure) in page.figures.items()}
    for name, text in drawn.items():
        write_text(folder / FIGURES / f"{name}.svg", text)
    write_text(folder / MARKDOWN_FILE, _markdown(page))
    return write_text(folder / PAGE_FILE, _html(page, drawn))


def write_metrics(metrics: Metrics, folder: Path) -> Path:
    """Writes `metrics.json` atomically and returns its path."""
    return write_text(folder / METRICS_FILE, sealed_json(metrics, indent=2, ensure_ascii=False) + "\n")


def read_metrics(folder: Path) -> Metrics:
    """Reads `metrics.json`, also of earlier versions, which called perturbations faults.

    Raises:
        OSError, ValueError: there is none, or it is corrupt.
    """
    metrics = read_sealed_json((folder / METRICS_FILE).read_bytes())
    if "faults" in metrics:
        rows = metrics.pop("faults")
        metrics["perturbations"] = [
            {("perturbation" if k == "fault" else k): v for k, v in row.items()} for row in rows
        ]
        if "faulty" in metrics["scores"]:
            metrics["scores"]["perturbed"] = metrics["scores"].pop("faulty")
    return metrics


def _facts(metrics: Metrics) -> dict[str, str]:
    data = metrics["data"]
    sources = {"ar": "sampled from the autoregressive model", "dvae": "of recordings, by the DVAE"}
    sources["stored"] = "read from a file"
    noun = "voices" if WRONG_VOICE in metrics["text_to_speech"] else "texts"
    facts = {"checkpoint": metrics["checkpoint"]}
    if "parameters" in metrics:  # not in reports of earlier versions
        facts["model"] = f"{metrics['parameters'] / 1e6:.1f} M parameters"
    return facts | {
        "corpus": f"{data['corpus']}, {metrics['gallery']} {noun} of the {metrics['split']} split",
        "codes": sources.get(data["codes"], data["codes"]),
        "fingerprint of the pairs": data["fingerprint"],
    }


def _html(page: Page, drawn: Mapping[str, str]) -> str:
    template = jinja2.Template(TEMPLATE.read_text(encoding="utf-8"), autoescape=True, trim_blocks=True)
    figures = [(title, CAPTIONS.get(name, ""), drawn[name]) for name, (title, _) in page.figures.items()]
    samples = [
        (sample, {name: base64.b64encode(clip).decode() for name, clip in sample.clips.items()})
        for sample in page.samples
    ]
    return template.render({**vars(page), "figures": figures, "samples": samples})


def _markdown(page: Page) -> str:
    lines = [f"# {page.title}", "", *(f"- {name}: {escape_markdown(value)}" for name, value in page.facts.items())]
    lines += ["", escape_markdown(page.summary)] if page.summary else []
    for table in page.tables:
        lines += ["", f"## {escape_markdown(table.title)}", "", *table_lines(table)]
    if page.figures:
        lines += ["", "## Figures"]
    for name, (title, _) in page.figures.items():
        lines += ["", f"{title}: {CAPTIONS.get(name, '')}".strip(), "", f"![{title}]({FIGURES}/{name}.svg)"]
    if page.left_out:
        parts = [f"- {part}: {escape_markdown(reason)}" for part, reason in page.left_out.items()]
        lines += ["", "## Not measured", "", *parts]
    if page.links:
        links = [f"- [{escape_markdown(name)}]({quote(target)})" for name, target in page.links.items()]
        lines += ["", "## Reports", "", *links]
    return "\n".join(lines) + "\n"
