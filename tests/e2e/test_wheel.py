"""The built wheel, installed outside of the repository: every console script, and a short training."""

import email
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest

from tests.e2e.commands import ROOT, TIMEOUT, environment
from tests.e2e.conftest import BUDGET, CORPUS
from tests.e2e.test_doctor import venv

SCRIPTS = list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with the installed libraries, and this package from its wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT], check=True)
    python = venv(folder / "venv", "clvp_train", "_clvp_train", "_editable", "__editable")
    (wheel,) = folder.glob("*.whl")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    return python.parent


def execute(installed, workplace, *command):
    settings = environment(workplace, PYTHONPATH="", PYTHONSAFEPATH="1")
    done = subprocess.run(
        [*command], cwd=workplace, env=settings, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_package_page_has_no_relative_links(installed):
    (wheel,) = installed.parents[1].glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (file,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        page = email.message_from_bytes(archive.read(file))
    readme = page.get_payload(decode=True).decode()
    links = re.findall(r"\]\(([^)]*)\)", readme)
    assert page["Description-Content-Type"] == "text/markdown" and all(link.startswith("https://") for link in links)
    assert "Apache--2.0" in links[0] and "[Better speech synthesis through scaling](https://" in readme
    assert "Documentation · Notebook · Recipes" in readme and "](" not in re.sub(r"\]\(https://", "", readme)


# one process for all, as each takes a second for its imports
HELP = """
import runpy, sys
from hydra.core.global_hydra import GlobalHydra

for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert not end.code, (script, end.code)
    GlobalHydra.instance().clear()
    print("\\nend of", script)
"""


def test_every_console_script_has_help(installed, tmp_path):
    paths = [str(installed / script) for script in SCRIPTS]
    helps = execute(installed, tmp_path, installed / "python", "-c", HELP, *paths).split("\nend of")
    assert len(SCRIPTS) >= 9 and len(helps) == len(SCRIPTS) + 1
    assert all(len(text.splitlines()) > 5 for text in helps[:-1])


def test_it_trains_outside_of_the_repository(installed, workplace):
    short = [*CORPUS, *BUDGET, "trainer.max_steps=1", "test=false", "hydra.run.dir=run"]
    execute(installed, workplace, installed / "clvp-train", *short)
    assert (workplace / "run/model/processor_config.json").exists()
    assert str(ROOT) not in (workplace / "run/config/config.yaml").read_text()
