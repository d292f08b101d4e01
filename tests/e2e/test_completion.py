"""A shell completes the command line, in a real bash with what `-sc install=bash` prints, and without loading torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.commands import ROOT, TIMEOUT, environment

# calls what TAB calls, with what bash sets for it
SCRIPT = """
eval "$(python train.py -sc install=bash)"
set -- $(complete -p python)
while [ $# -gt 1 ] && [ "$1" != -F ]; do shift; done
COMP_LINE="$LINE" COMP_POINT=${#LINE}
COMP_WORDS=($LINE) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
"$2"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("python train.py tr", ["trainer.", "trainer=", "training.", "training=", "trust_run_folder="]),
        ("python train.py corpus=nano trainer=", ["trainer=cpu", "trainer=ddp", "trainer=ddp_cpu", "trainer=gpu"]),
        ("python train.py resume=auto logger=w", ["logger=wandb"]),
        ("python evaluate.py checkpoint=model rerank.num_t", ["rerank.num_texts="]),
    ],
)
def test_a_shell_completes_groups_their_files_and_settings(line, words, tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise SystemExit('torch is loaded')\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = environment(tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}", PATH=path, LINE=line)
    done = subprocess.run(
        ["bash", "--norc", "-c", SCRIPT], cwd=ROOT, env=env, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.stdout.split() == words and not done.stderr, done.stderr


def test_names_of_the_package_load_late_where_a_shell_completes(tmp_path):
    """As in a Hydra program of somebody else's, which completes too."""
    script = "from clvp_train import CLVPModel; print(CLVPModel.__name__)"
    command = [sys.executable, "-c", script, "-sc", "query=bash"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.stdout == "CLVPModel\n", done.stderr
