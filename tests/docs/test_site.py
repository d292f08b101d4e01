"""The site that `make docs` builds: no warnings, every public name, no dead links."""

import html
import importlib
import inspect
import re
import shutil
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import clvp_train
from tests.docs.blocks import PAGES, blocks
from tests.docs.conftest import link_environment
from tests.docs.test_pages import run_in_bash
from tests.e2e.commands import ROOT

PACKAGES = sorted(path.parent.name for path in ROOT.glob("clvp_train/*/__init__.py") if "__all__" in path.read_text())
LINK = re.compile(r"\]\(([^)\s]+)\)")
NOT_SITE = shutil.ignore_patterns(".*", "outputs", "multirun", "wandb", "nano", "_build", "api", "__pycache__")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built in a copy of the repository without earlier output."""
    copy = tmp_path_factory.mktemp("site") / "copy"
    shutil.copytree(ROOT, copy, ignore=NOT_SITE)
    link_environment(copy / ".venv")
    status, output = run_in_bash(copy, ["-c", "make docs"], {"PYTHONPATH": str(copy)})
    assert status == 0, output
    return copy / "docs/_build"


@cache
def anchors(page: Path) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', page.read_text()))


@pytest.mark.parametrize("package", PACKAGES)
def test_api_reference_documents_every_public_name(site, package):
    module = importlib.import_module(f"clvp_train.{package}")
    page = site / f"docs/api/{module.__name__}.html"
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", page.read_text())).split())
    for name in module.__all__:
        assert f"{module.__name__}.{name}" in anchors(page), name
        member = getattr(module, name)
        if inspect.isclass(member) or inspect.isfunction(member):
            first = " ".join(inspect.getdoc(member).split("\n\n")[0].replace("`", "").split())
            assert first.removesuffix(":") in text, f"{name}: {first}"


def test_public_names_of_the_package_are_documented(site):
    packages = (importlib.import_module(f"clvp_train.{package}").__all__ for package in ("models", "tortoise"))
    others = set(clvp_train.__all__).difference(*packages)
    assert others == {"Ranking", "Reranker"}
    assert {f"clvp_train.inference.reranker.{name}" for name in others} <= anchors(
        site / "docs/api/clvp_train.inference.reranker.html"
    )


def test_every_page_is_on_the_site_and_no_link_is_dead(site):
    for page in PAGES:
        assert (site / page.relative_to(ROOT)).with_suffix(".html").is_file(), page
    assert "url=docs/index.html" in (site / "index.html").read_text()
    dead, num_links = [], 0
    for page in site.rglob("*.html"):
        for link in re.findall(r'\b(?:href|src)="([^"]+)"', page.read_text()):
            url = urlsplit(html.unescape(link))
            if url.scheme or url.netloc:
                continue
            num_links += 1
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            has_anchor = not url.fragment or target.suffix != ".html"
            if not target.is_file() or not (has_anchor or url.fragment in anchors(target)):
                dead.append(f"{page.relative_to(site)}: {link}")
    assert not dead and num_links > 1000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_work_on_a_code_host(page):
    code = {line for block in blocks(page) for line in block.lines}
    prose = "\n".join(line for line in page.read_text().splitlines() if line not in code)
    for link in LINK.findall(prose):
        url = urlsplit(link)
        if url.scheme:
            continue
        target = (page.parent / url.path).resolve() if url.path else page
        assert target.exists(), link
        if url.fragment:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert url.fragment in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link
