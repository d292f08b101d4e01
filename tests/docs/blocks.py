"""The fenced blocks of the documentation, and the commands in them."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.commands import ROOT

PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data/README.md", *ROOT.glob("docs/*.md")],
    key=lambda page: (page.parent != ROOT, page),
)
SHELL, PYTHON = ("sh", "bash"), ("python",)
SHOWN = ("", "text", "yaml", "{toctree}", "{eval-rst}")  # output and diagrams; directives of the site
FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)(?:```$|\Z)", re.MULTILINE)
COMMENT = re.compile(r"\s+# .*$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the number of its first line, its language, its lines."""

    page: str
    line: int
    language: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """A command of a shell block, with continuation lines joined and comments removed, or a complete script."""

    where: str  # page:line
    kind: str  # command, script or python
    lines: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page. A block without a closing fence extends to the end of the page."""
    text, name = page.read_text(), str(page.relative_to(ROOT))
    return [
        Block(name, text.count("\n", 0, fence.start()) + 2, fence[1].strip(), tuple(fence[2].splitlines()))
        for fence in FENCE.finditer(text)
    ]


def commands(block: Block) -> list[Command]:
    """The commands of a block, in order."""
    if block.language in PYTHON:
        return [Command(f"{block.page}:{block.line}", "python", block.lines)]
    if block.language not in SHELL:
        return []
    joined = _joined(block)
    if block.lines[0].startswith("#!"):
        return [Command(f"{block.page}:{block.line}", "script", tuple(line for _, line in joined))]
    typed = [(number, COMMENT.sub("", line)) for number, line in joined]
    return [
        Command(f"{block.page}:{number}", "command", (line,))
        for number, line in typed
        if line and not line.startswith("#")
    ]


def _joined(block: Block) -> list[tuple[int, str]]:
    """Lines with their numbers; a line that ends in a backslash is joined with the next."""
    joined: list[tuple[int, str]] = []
    continued = False
    for number, line in enumerate(block.lines, start=block.line):
        if continued:
            number, line = joined[-1][0], f"{joined.pop()[1]} {line.strip()}"
        continued = line.endswith("\\")
        joined.append((number, line.removesuffix("\\").rstrip()))
    return joined
