"""Templates of cards: Jinja, where a value that is not there is an error."""

from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta

from clvp_train.errors import UserError

MODEL_CARD = Path(__file__).with_name("model_card.md.jinja")
# what a model's card may speak of; see `card.model_card`
KNOWN = frozenset(
    (
        *("metadata", "name", "model_id", "license", "model", "tokenizer", "data", "recipe", "metrics", "tables"),
        *("weak", "figures", "example", "versions"),
    )
)


def check_template(path: str | Path) -> None:
    """Raises UserError if a template for a model's card is missing or malformed, or uses a value that is not known."""
    unknown = sorted(meta.find_undeclared_variables(_environment().parse(_read(path))) - KNOWN)
    if unknown:
        raise UserError(
            f"hub.card={path} uses {', '.join(unknown)}, which no card is given: use {', '.join(sorted(KNOWN))}, or write it "
            "out"
        )


def render(path: str | Path, values: dict[str, Any]) -> str:
    """Fills in a template.

    Raises:
        UserError: it is missing or malformed, or a value that it uses is not there.
    """
    try:
        return _environment().from_string(_read(path)).render(values)
    except jinja2.UndefinedError as error:
        raise UserError(f"the card {path} lacks a value ({error.message}): leave it out, or set it") from None


def _read(path: str | Path) -> str:
    """The template's text, if it can be parsed."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
        _environment().parse(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the card {path} cannot be read ({error}): give a Jinja template") from None
    except jinja2.TemplateSyntaxError as error:
        raise UserError(
            f"the card {path} is no Jinja template (line {error.lineno}: {error.message}): mend it"
        ) from None
    return text


def _environment() -> jinja2.Environment:
    # a card is Markdown, which has nothing to escape
    return jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
