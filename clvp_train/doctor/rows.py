"""The rows of the output: a name, a result, and how to fix it."""

from dataclasses import dataclass
from pathlib import Path

GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the output."""

    name: str
    result: str
    fix: str | None = None  # None: training needs no action


def short_path(path: Path) -> str:
    """The path with ~ for the home folder."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) and path != home else str(path)


def format_sections(sections: dict[str, list[Finding]]) -> list[str]:
    """The lines of the output: rows in columns below the title of their section."""
    width = max(len(row.name) for rows in sections.values() for row in rows)
    lines = []
    for title, rows in sections.items():
        lines += ["", title]
        for row in rows:
            lines.append(f"  {row.name.ljust(width)}  {row.result}")
            if row.fix:
                lines.append(f"  {' ' * width}  -> {row.fix}")
    return lines[1:]
