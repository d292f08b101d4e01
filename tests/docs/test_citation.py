"""CITATION.cff and CHANGELOG.md are consistent with pyproject.toml."""

import re
import tomllib
from urllib.parse import unquote

import yaml

from tests.e2e.commands import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()


def test_citation_has_the_fields_that_cff_1_2_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["title"] == "clvp_train"
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    paper = citation["preferred-citation"]
    for work in (citation, paper):
        assert work["authors"] and all(
            set(author) <= {"name", "given-names", "family-names"} for author in work["authors"]
        )
    assert paper["title"] == "Better speech synthesis through scaling" and paper["year"] == 2023
    assert paper["url"] in README


def test_changelog_starts_with_unreleased_and_the_current_version():
    titles = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == "Unreleased" and titles[1].split(" ")[0] == PROJECT["version"]


def test_badges_tell_the_truth():
    badges = "\n".join(unquote(url) for url in re.findall(r"https://img.shields.io/badge/(\S+)-\w+\)\]", README))
    versions = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r"Python :: 3\.", name)]
    assert badges.splitlines()[:2] == [
        f"licence-{PROJECT['license'].replace('-', '--')}",
        f"Python-{' | '.join(versions)}",
    ]
    assert all(url in README for url in PROJECT["urls"].values())
