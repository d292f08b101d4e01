"""Sphinx configuration of the documentation site (`make docs`).

The source folder is the repository root, so that README.md, benchmarks/RESULTS.md, and the other pages outside docs/
are part of the site, with relative links that also work on a code host.
"""

import sys
import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))
from settings_page import write_settings_page

with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as file:
    release = tomllib.load(file)["project"]["version"]
project = "clvp_train"
copyright = "The clvp_train authors"
html_title = f"clvp_train {release}"
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "benchmarks/RESULTS.md", "data/README.md", "recipes/*/README.md"]
exclude_patterns = ["docs/_*"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_heading_anchors = 3
default_role = "code"  # docstrings are written as Markdown
smartquotes_action = "D"  # dashes only: quotes stay as typed
autosummary_ignore_module_all = False  # a page documents the public names of its package
autosummary_imported_members = True
napoleon_custom_sections = [("Fields", "params_style")]
napoleon_use_ivar = True
napoleon_use_param = False  # "text_embeds, speech_embeds: …" is one line
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 100
templates_path = [
    str(Path(__file__).with_name("_templates"))
]  # absolute: autosummary resolves it against the source folder

html_theme = "furo"
html_static_path = ["_site/site.css"]
html_css_files = ["site.css"]
html_extra_path = ["_site/index.html"]  # redirects to docs/index.html
html_copy_source = False
html_show_sphinx = False


def _skip_undocumented(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Skips class members without their own docstring, and fields, which the class docstring documents."""
    described = callable(member) or isinstance(member, (property, classmethod, staticmethod))
    return None if what not in ("class", "exception") or (described and member.__doc__) else True


def _clear_constant_docstring(app: Sphinx, what: str, name: str, member: Any, options: Any, lines: list[str]) -> None:
    """Removes the docstring of a constant, which is that of its type."""
    if what == "data":
        lines.clear()


def _drop_modules_without_source(app: Sphinx, env: Any) -> None:
    """Keeps viewcode from listing modules without a source page, such as that of the `tuple` in a type alias."""
    env._viewcode_modules = {name: source for name, source in env._viewcode_modules.items() if source}


def setup(app: Sphinx) -> None:
    write_settings_page()
    app.connect("env-updated", _drop_modules_without_source)
    app.connect("autodoc-skip-member", _skip_undocumented)
    app.connect("autodoc-process-docstring", _clear_constant_docstring)
