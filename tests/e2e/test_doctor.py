"""`python -m clvp_train.doctor` in complete, broken, incomplete and empty environments; other commands in a broken one."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.e2e.commands import ROOT, TIMEOUT, TRAIN, environment, execute

DOCTOR = ["-m", "clvp_train.doctor"]
SECRETS = {"HF_TOKEN": "hf_" + "s" * 34, "WANDB_API_KEY": "0123456789" * 4}
OTHER_BUILD = "Could not load this library: libtorchaudio.so: undefined symbol"


def parse(stdout: str) -> dict[str, str]:
    """The result of each row, followed by its fix."""
    rows, name = {}, ""
    for line in stdout.splitlines():
        if row := re.match(r"  (\S.*?)  +(\S.*)", line):
            name, rows[row[1]] = row.groups()
        elif line.startswith("    "):
            rows[name] += f" {line.strip()}"
    return rows


def test_complete_environment(tmp_path):
    (tmp_path / "outputs/codes").mkdir(parents=True)
    (tmp_path / "outputs/codes/shard").write_bytes(b"0" * 2**25)
    variables = {"HF_ENDPOINT": "https://me:password@hub.local/x", "WANDB_MODE": "offline"}
    done = execute(DOCTOR, tmp_path, **SECRETS, **variables)
    assert done.status == 0 and "->" not in done.stdout, done.stdout + done.stderr
    rows = parse(done.stdout)
    assert rows["together"].endswith(": compatible")
    assert re.match(r"\d+ cores, \d+ GiB of memory, .*bfloat16", rows["CPU"])
    assert rows["configs"] == str(ROOT / "conf") and rows["bundled data"] == str(ROOT / "data")
    assert rows["speech codes"].startswith("outputs/codes, 0.03 GiB") and "does not exist" in rows["W&B cache"]
    assert rows["Hub"] == "token from HF_TOKEN" and rows["W&B"] == "key from WANDB_API_KEY"
    assert rows["HF_ENDPOINT"] == "https://hub.local/x" and rows["WANDB_MODE"] == "offline"
    assert not any(secret in done.stdout + done.stderr for secret in (*SECRETS.values(), "password"))


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> str:
    """A PYTHONPATH with a torchaudio for another torch, and a W&B that crashes."""
    folder = tmp_path_factory.mktemp("broken")
    crash = "import os; os.kill(os.getpid(), 11)"
    for name, line in (("torchaudio", f"raise OSError({OTHER_BUILD!r})"), ("wandb", crash)):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"{line}\n")
    return f"{folder}{os.pathsep}{ROOT}"


def test_broken_libraries_are_listed_with_error_and_fix(broken, tmp_path):
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai login user password {SECRETS['WANDB_API_KEY']}\n")
    done = execute(DOCTOR, tmp_path, PYTHONPATH=broken)
    assert done.status == 1 and "Traceback" not in done.stderr, done.stderr
    rows = parse(done.stdout)
    assert f"import fails: OSError: {OTHER_BUILD}" in rows["torchaudio"]
    assert '-> pip install --force-reinstall "torch>=2.11,<2.15" "torchaudio>=2.11,<2.12"' in rows["torchaudio"]
    assert rows["transformers"].endswith("-> fix torchaudio") and "not compatible" in rows["together"]
    assert "killed by SIGSEGV" in rows["wandb"] and '-> pip install --force-reinstall "wandb>=0.31"' in rows["wandb"]
    assert "bfloat16" in rows["CPU"] and "fails" not in rows["datasets"]
    assert done.stdout.splitlines()[-1] == "To fix: torchaudio, transformers, wandb"
    assert rows["W&B"] == "key from ~/.netrc" and SECRETS["WANDB_API_KEY"] not in done.stdout


def test_command_with_broken_libraries_refers_to_the_doctor(broken, tmp_path):
    done = execute([str(ROOT / TRAIN)], tmp_path, PYTHONPATH=broken)
    assert done.status == 2 and len(done.stderr.splitlines()) == 1
    assert OTHER_BUILD in done.stderr and "python -m clvp_train.doctor" in done.stderr


def venv(folder: Path, *without: str) -> Path:
    """The interpreter of an environment with the installed distributions, except those with these prefixes."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(without):
            (packages / entry.name).symlink_to(entry)
    return folder / "bin/python"


@pytest.mark.parametrize(
    ("without", "missing"), [(("gradio", "datasets"), {"datasets"}), (("",), {"torch", "transformers"})]
)
def test_missing_libraries_are_listed_with_the_install_command(tmp_path, without, missing):
    command = [str(venv(tmp_path / "venv", *without)), *DOCTOR]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=TIMEOUT
    )
    rows = parse(done.stdout)
    assert done.returncode == 1 and rows["demo"] == 'the demo page: pip install "gradio>=6.31" "pandas>=2.3"', (
        done.stderr
    )
    assert all(re.match(f'missing -> pip install "{name}>=', rows[name]) for name in missing)
    assert missing <= set(done.stdout.splitlines()[-1].removeprefix("To fix: ").split(", "))
