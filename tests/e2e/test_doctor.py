"""`python -m clvp_train.doctor` in environments that are whole, broken, incomplete and empty; and other commands in a broken one."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.e2e.commands import ROOT, TIMEOUT, TRAIN, Finished, environment, execute

DOCTOR = ["-m", "clvp_train.doctor"]
SECRETS = {"HF_TOKEN": "hf_" + "s" * 34, "WANDB_API_KEY": "0123456789" * 4}
UNLIKE = "Could not load this library: libtorchaudio.so: undefined symbol"


def said(done: Finished) -> dict[str, str]:
    """What stands behind each name, mends included."""
    found, name = {}, ""
    for line in done.stdout.splitlines():
        if told := re.match(r"  (\S.*?)  +(\S.*)", line):
            name, text = told.groups()
            found[name] = text
        elif line.startswith("    "):
            found[name] += f" {line.strip()}"
    return found


def test_a_whole_environment(tmp_path):
    (tmp_path / "outputs/codes").mkdir(parents=True)
    (tmp_path / "outputs/codes/shard").write_bytes(b"0" * 2**25)
    place = {"HF_ENDPOINT": "https://me:password@hub.local/x", "WANDB_MODE": "offline"}
    done = execute(DOCTOR, tmp_path, **SECRETS, **place)
    assert done.status == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "All that training needs is there." and "->" not in done.stdout
    rows = said(done)
    assert rows["together"].endswith("they load") and re.match(r"\d+ cores, \d+ GiB of memory, .*bfloat16", rows["CPU"])
    assert rows["configs"] == str(ROOT / "conf") and rows["bundled data"] == str(ROOT / "data")
    assert rows["speech codes"].startswith("outputs/codes, 0.03 GiB") and "not there yet" in rows["W&B cache"]
    assert rows["Hub"] == "a token, from HF_TOKEN" and rows["W&B"] == "a key, from WANDB_API_KEY"
    assert rows["HF_ENDPOINT"] == "https://hub.local/x" and rows["WANDB_MODE"] == "offline"
    assert not any(secret in done.stdout + done.stderr for secret in (*SECRETS.values(), "password"))


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> str:
    """A PYTHONPATH with a torchaudio for another torch, and a W&B that crashes."""
    folder = tmp_path_factory.mktemp("broken")
    for name, line in (("torchaudio", f"raise OSError({UNLIKE!r})"), ("wandb", "import os; os.kill(os.getpid(), 11)")):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"{line}\n")
    return f"{folder}{os.pathsep}{ROOT}"


def test_broken_libraries_are_named_with_their_error_and_the_mend(broken, tmp_path):
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai login user password {SECRETS['WANDB_API_KEY']}\n")
    done = execute(DOCTOR, tmp_path, PYTHONPATH=broken)
    assert done.status == 1 and "Traceback" not in done.stderr, done.stderr
    rows = said(done)
    assert f"does not load: OSError: {UNLIKE}" in rows["torchaudio"]
    assert '-> pip install --force-reinstall "torch>=2.11,<2.15" "torchaudio>=2.11,<2.12"' in rows["torchaudio"]
    assert "as torchaudio does not -> mend torchaudio" in rows["transformers"] and "do not load" in rows["together"]
    assert "killed by SIGSEGV" in rows["wandb"] and '-> pip install --force-reinstall "wandb>=0.31"' in rows["wandb"]
    assert "bfloat16" in rows["CPU"] and "load" not in rows["datasets"]
    assert done.stdout.splitlines()[-1] == "To mend: torchaudio, transformers, wandb"
    assert rows["W&B"] == "a key, from ~/.netrc" and SECRETS["WANDB_API_KEY"] not in done.stdout


def test_a_command_with_broken_libraries_ends_in_one_line_that_names_the_doctor(broken, tmp_path):
    done = execute([str(ROOT / TRAIN)], tmp_path, PYTHONPATH=broken)
    assert done.status == 2 and len(done.stderr.splitlines()) == 1
    assert UNLIKE in done.stderr and "python -m clvp_train.doctor" in done.stderr


def test_the_package_imports_with_broken_libraries_and_its_names_say_why_not(broken, tmp_path):
    script = tmp_path / "use.py"
    script.write_text("""
import clvp_train
try:
    from clvp_train import CLVPModel
except ImportError as error:
    print(error, type(error.__cause__), sep="\\n")
try:
    clvp_train.nothing
except AttributeError as error:
    print(error)
""")
    done = execute([str(script)], tmp_path, PYTHONPATH=broken)
    assert done.status == 0, done.stderr
    error, cause, unknown = done.stdout.splitlines()
    assert UNLIKE in error and "python -m clvp_train.doctor" in error and cause == "<class 'OSError'>"
    assert unknown == "module 'clvp_train' has no attribute 'nothing'"


def venv(folder: Path, *without: str) -> Path:
    """The python of an environment with all of this one's distributions but those whose names begin so."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(without):
            (packages / entry.name).symlink_to(entry)
    return folder / "bin/python"


@pytest.mark.parametrize(
    ("without", "missing"), [(("gradio", "datasets"), {"datasets"}), (("",), {"torch", "transformers"})]
)
def test_what_is_missing_comes_with_its_command(tmp_path, without, missing):
    command = [str(venv(tmp_path / "venv", *without)), *DOCTOR]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=TIMEOUT
    )
    rows = said(Finished(done.returncode, done.stdout, done.stderr))
    assert done.returncode == 1 and rows["demo"] == 'the demo page: pip install "gradio>=6.31,<7"', done.stderr
    assert all(re.match(f'missing -> pip install "{name}>=', rows[name]) for name in missing)
    assert missing <= set(done.stdout.splitlines()[-1].removeprefix("To mend: ").split(", "))
