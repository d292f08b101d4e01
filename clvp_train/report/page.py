"""A report as one HTML file that needs nothing beside it, and as Markdown with its figures in files."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import matplotlib
from matplotlib.figure import Figure
from PIL import Image

from clvp_train.report.figures import STYLE
from clvp_train.report.tables import Table

TEMPLATE = Path(__file__).with_name("template.html")


@dataclass(frozen=True)
class Page:
    """What both show."""

    title: str
    facts: dict[str, str]  # what was measured with what
    tables: Sequence[Table]
    figures: dict[str, tuple[str, Figure]] = field(default_factory=dict)  # by name a title and a figure
    headline: dict[str, str] = field(default_factory=dict)  # the few numbers that matter most
    left_out: dict[str, str] = field(default_factory=dict)  # part: why
    links: dict[str, str] = field(default_factory=dict)  # further reports


def html(page: Page) -> str:
    template = jinja2.Template(TEMPLATE.read_text(encoding="utf-8"), autoescape=True, trim_blocks=True)
    figures = [(title, svg(figure)) for title, figure in page.figures.values()]
    return template.render({**vars(page), "figures": figures})


def markdown(page: Page, figure_folder: str) -> str:
    """Figures are linked as SVG files in `figure_folder`."""
    lines = [f"# {page.title}", "", *(f"- {name}: {_escape(value)}" for name, value in page.facts.items())]
    for table in page.tables:
        lines += ["", f"## {table.title}", "", *table_lines(table)]
    if page.figures:
        lines += ["", "## Pictures"]
    for name, (title, _) in page.figures.items():
        lines += ["", f"{title}:", "", f"![{title}]({figure_folder}/{name}.svg)"]
    if page.left_out:
        lines += ["", "## Not measured", "", *(f"- {part}: {reason}" for part, reason in page.left_out.items())]
    if page.links:
        lines += ["", "## Reports", "", *(f"- [{name}]({target})" for name, target in page.links.items())]
    return "\n".join(lines) + "\n"


def table_lines(table: Table) -> list[str]:
    """A table in Markdown."""
    lines = []
    if table.rows:
        lines += [_line(table.header), _line(["---"] * len(table.header)), *map(_line, table.rows)]
    return lines + (["", table.note] if table.rows and table.note else [table.note])


def svg(figure: Figure) -> str:
    """A figure as an `<svg>` element; the same figure gives the same text."""
    sink = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(sink, format="svg", metadata={"Date": None})
    text = sink.getvalue()
    return text[text.index("<svg") :]


def png(figure: Figure) -> Image.Image:
    """A figure on white, as an RGB picture."""
    sink = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(sink, format="png", dpi=150, facecolor="white")
    return Image.open(sink).convert("RGB")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escape, cells))} |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
