"""What is told: a name, what was found, and how to mend it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One line of the report."""

    name: str
    found: str
    mend: str | None = None  # None: training needs nothing to be done


def told(path: Path) -> str:
    """With ~ for the home folder."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) and path != home else str(path)


def lines(sections: dict[str, list[Row]]) -> list[str]:
    """The rows under their titles, in columns."""
    width = max(len(row.name) for rows in sections.values() for row in rows)
    text = []
    for title, rows in sections.items():
        text += ["", title]
        for row in rows:
            text.append(f"  {row.name.ljust(width)}  {row.found}")
            if row.mend:
                text.append(f"  {' ' * width}  -> {row.mend}")
    return text[1:]
