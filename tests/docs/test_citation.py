"""CITATION.cff and CHANGELOG.md are consistent with pyproject.toml."""

import re
import tomllib

import yaml

from tests.e2e.commands import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


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
    assert paper["url"] in (ROOT / "README.md").read_text()


def test_changelog_starts_with_unreleased_and_the_current_version():
    titles = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == "Unreleased" and titles[1].split(" ")[0] == PROJECT["version"]
