import pytest

from clvp_train.doctor import versions


@pytest.mark.parametrize("extra", [None, "demo", "sweep", "slurm"])
def test_requirements_of_clone_equal_those_of_installed_package(extra, tmp_path, monkeypatch):
    clone = versions.requirements(extra)
    monkeypatch.setattr(versions, "PACKAGE", tmp_path)  # without a pyproject.toml next to it
    assert versions.requirements(extra) == clone
    assert extra is not None or clone["torch"] == ">=2.11,<2.15"


@pytest.mark.parametrize(
    ("version", "fits"),
    [("2.11.0", True), ("2.14.1+cu130", True), ("2.11", True), ("2.10.2", False), ("2.15.0", False), ("3", False)],
)
def test_fits(version, fits):
    assert versions.fits(version, ">=2.11,<2.15") is fits
