"""The site: `make docs` builds it from the repository's own pages, whose relative links hold here as on a code host.

The source folder is the repository's root, so that README.md, benchmarks/RESULTS.md and the like are pages as they lie.
"""

import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

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
smartquotes_action = "D"  # dashes; quotes stay as they are typed
autosummary_ignore_module_all = False  # a page holds what its package exports
autosummary_imported_members = True
napoleon_custom_sections = [("Fields", "params_style")]
napoleon_use_ivar = True
napoleon_use_param = False  # "text_embeds, speech_embeds: …" is one line
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 100
templates_path = [str(Path(__file__).with_name("_templates"))]  # autosummary would look below the root

html_theme = "furo"
html_static_path = ["_site/site.css"]
html_css_files = ["site.css"]
html_extra_path = ["_site/index.html"]  # the root leads to docs/index.html
html_copy_source = False
html_show_sphinx = False


def _only_documented(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Of a class, methods and properties with a docstring; its fields stand in its own. Of a module, everything."""
    described = callable(member) or isinstance(member, (property, classmethod, staticmethod))
    return None if what not in ("class", "exception") or (described and member.__doc__) else True


def _constants_bare(app: Sphinx, what: str, name: str, member: Any, options: Any, lines: list[str]) -> None:
    """A constant would be shown with the docstring of its type."""
    if what == "data":
        lines.clear()


def _without_sources_unseen(app: Sphinx, env: Any) -> None:
    """viewcode would list modules that it has no page of, such as that of the `tuple` in an alias."""
    env._viewcode_modules = {name: source for name, source in env._viewcode_modules.items() if source}


def setup(app: Sphinx) -> None:
    app.connect("env-updated", _without_sources_unseen)
    app.connect("autodoc-skip-member", _only_documented)
    app.connect("autodoc-process-docstring", _constants_bare)
