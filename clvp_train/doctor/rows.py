"""What is told: a name, what was found, and how to mend it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the report."""

    name: str
    found: str
    mend: str | None = None  # None: training needs nothing to be done


def lines(sections: dict[str, list[Row]]) -> list[str]:
    """The rows under their titles, in columns."""
    width = max(len(row.name) for rows in sections.values() for row in rows)
    told = []
    for title, rows in sections.items():
        told += ["", title]
        for row in rows:
            told.append(f"  {row.name.ljust(width)}  {row.found}")
            if row.mend:
                told.append(f"  {' ' * width}  -> {row.mend}")
    return told[1:]
