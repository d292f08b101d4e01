"""Writes docs/settings.md, the reference of all settings, from the comments of conf/*.yaml. Sphinx calls it for the site."""

import re
from collections.abc import Iterator
from pathlib import Path

CONF, PAGE = Path(__file__).parents[1] / "conf", Path(__file__).with_name("settings.md")
SETTING = re.compile(r"^( *)([\w@]+):(?: +(.*?))??(?:  # (.*))?$")
HEAD = """# Settings

Generated from the comments in `conf/`. A group is chosen with `GROUP=NAME`, such as `corpus=ljspeech`, and a setting of it is
changed with `GROUP.KEY=VALUE`, such as `corpus.root=FOLDER`. `???` marks a required setting. Types and ranges are checked
before any work.
"""


def write_settings_page() -> None:
    """Writes the page."""
    commands, groups = sorted(CONF.glob("*.yaml")), sorted(CONF.glob("*/**/*.yaml"))
    parts = [HEAD, "## Commands\n", *map(_section, commands), "## Groups\n", *map(_section, groups)]
    PAGE.write_text("\n".join(parts), encoding="utf-8")


def _section(file: Path) -> str:
    """A heading, the purpose, and a table of the settings of a file."""
    name = file.relative_to(CONF).with_suffix("").as_posix()
    lines = file.read_text(encoding="utf-8").splitlines()
    group, _, choice = name.rpartition("/")
    title = f"{group}={choice}" if group else name
    purpose = lines[0].removeprefix("# ") + "\n" if lines and lines[0].startswith("# ") else ""
    rows = [f"| `{key}` | {value} | {meaning} |" for key, value, meaning in _settings(lines)]
    table = ["| setting | default | |", "| --- | --- | --- |", *rows, ""] if rows else []
    return "\n".join([f"### {title}\n", purpose, *table])


def _settings(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """Each setting with its full name in the file, its value, and its comment; without the defaults list and `_target_`."""
    above: list[tuple[int, str]] = []  # indentation and name of the settings around a line
    for match in filter(None, map(SETTING.match, lines)):
        indent, key, value, comment = len(match[1]), match[2], match[3] or "", match[4] or ""
        above = [*(item for item in above if item[0] < indent), (indent, key)]
        if above[0][1] in ("defaults", "hydra") or key.startswith("_") or not (value or comment):
            continue
        cell = f"`{value}`" if value else ""
        yield ".".join(name for _, name in above), cell.replace("|", "\\|"), comment.replace("|", "\\|")


if __name__ == "__main__":
    write_settings_page()
