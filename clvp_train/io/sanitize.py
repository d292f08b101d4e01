"""Text that others will read: secrets in it, and Markdown escapes."""

import html
import os
import re

HUB_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b")
# of environment variables
SECRET_NAMES = re.compile(r"(?:TOKEN(?!IZ)|SECRET|PASSWORD|(?:API|ACCESS)_?KEY)(?!.*_(?:DIR|PATH|FILE)$)")
MIN_SECRET_LENGTH = 16  # shorter values, such as "1" or "none", would match ordinary text


def find_secret(data: str | bytes) -> str | None:
    """The name of a secret that the data contains, such as "$WANDB_API_KEY"; None if it contains none.

    Secrets are the values of environment variables with such names, and tokens of the Hugging Face Hub.
    """
    data = data.encode(errors="surrogateescape") if isinstance(data, str) else data
    for name, value in os.environ.items():
        if SECRET_NAMES.search(name) and len(value) >= MIN_SECRET_LENGTH and os.fsencode(value) in data:
            return f"${name}"
    return "a token of the Hugging Face Hub" if HUB_TOKEN.search(data) else None


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, also in a table: no HTML, link, code or line starts in it."""
    escaped = re.sub(r"([\\`\[\]|])", r"\\\1", html.escape(text, quote=False))
    return " ".join(escaped.splitlines())
