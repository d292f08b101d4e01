import pytest

from clvp_train.doctor import requirements


@pytest.mark.parametrize("extra", [None, "demo", "sweep", "slurm"])
def test_a_clone_and_an_installed_package_declare_the_same(extra, tmp_path, monkeypatch):
    clone = requirements.requirements(extra)
    monkeypatch.setattr(requirements, "PACKAGE", tmp_path)  # no pyproject.toml stands above it
    assert requirements.requirements(extra) == clone
    assert extra is not None or clone["torch"] == ">=2.11,<2.15"


@pytest.mark.parametrize(
    ("version", "fits"),
    [("2.11.0", True), ("2.14.1+cu130", True), ("2.11", True), ("2.10.2", False), ("2.15.0", False), ("3", False)],
)
def test_a_version_within_bounds(version, fits):
    assert requirements.fits(version, ">=2.11,<2.15") is fits
