"""Runs every command and every Python block of the documentation, with the changes of adaptations.py."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from clvp_train import Reranker
from clvp_train.metrics import WRONG_VOICE
from clvp_train.pairs import read_manifest
from tests.docs.adaptations import ADAPTATIONS, adapted
from tests.docs.blocks import PAGES, PYTHON, SHELL, SHOWN, Block, Command, blocks, commands
from tests.e2e.commands import ROOT, TIMEOUT, environment, execute, run
from tests.e2e.hub_stand_in import hub_stand_in
from tests.parity import tortoise_reference

BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [command for block in BLOCKS for command in commands(block)]
SHIMS = ROOT / "tests/docs/shims"
PLAIN = re.compile(r"^((?:[A-Z_]+=\S+ )*)python (?:-m )?([^\s$|&;<>`]+)([^$|&;<>`]*)$")  # python without shell syntax
# commands that start their own command line again, or inspect the environment, need a new process
NEW_PROCESS = ("submitit", "clvp_train.doctor")


def adapted_text(command: Command) -> str:
    lines = command.lines if command.kind == "python" else tuple(map(adapted, command.lines))
    return "\n".join(lines)


CODEC, VOICE = (
    [command for command in COMMANDS if re.search(pattern, "".join(command.lines))]
    for pattern in (r"\b(codec=mimi|runs/mimi)\b", r"\b(pairs|runs)/voices\b")
)
# a command of several pages runs once
DISTINCT = list(
    {
        re.sub(r"\s+#.*", "", adapted_text(command)): command
        for command in reversed(COMMANDS)
        if command not in CODEC + VOICE
    }.values()
)[::-1]


def run_in(folder: Path, line: str, extra: dict[str, str]) -> tuple[int, str]:
    """Runs a command line. Returns its status and output."""
    python = PLAIN.match(line)
    if python is None:
        return run_in_bash(folder, ["-c", line], extra, copies=2 if "--nnodes 2" in line else 1)
    set_here, program, rest = python.groups()
    extra = extra | dict(word.split("=", 1) for word in shlex.split(set_here))
    if any(word in line for word in NEW_PROCESS):
        done = execute(shlex.split(line)[len(set_here.split()) + 1 :], folder, **extra)
    else:
        script = program if program.endswith(".py") else f"{program.replace('.', '/')}.py"
        done = run(str(folder / script), shlex.split(rest), folder, **extra)
    return done.status, done.stdout + done.stderr


def run_in_bash(folder: Path, arguments: list[str], extra: dict[str, str], copies: int = 1) -> tuple[int, str]:
    """Runs bash with .venv activated, in `copies` simultaneous processes, as on several nodes."""
    started = [
        subprocess.Popen(
            ["bash", *arguments],
            cwd=folder,
            env=environment(folder, **extra),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(copies)
    ]
    outputs = [process.communicate(timeout=TIMEOUT)[0] for process in started]
    return max(process.returncode for process in started), "\n".join(outputs)


@pytest.fixture
def variables(tmp_path, hub) -> dict[str, str]:
    """The environment variables of the commands."""
    return {
        "PATH": os.pathsep.join([str(Path(sys.prefix, "bin")), os.environ["PATH"]]),
        "PYTHONPATH": str(tmp_path),
        "HF_HOME": str(hub),
    }


@pytest.fixture
def online() -> Iterator[dict[str, str]]:
    """The environment variables of a user who is logged in to a Hub on loopback."""
    token = "hf_" + "a" * 34
    with hub_stand_in() as hub:
        hub.account(token, "me")
        yield {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}


@pytest.fixture
def cluster(tmp_path, variables) -> dict[str, str]:
    """The environment variables of a SLURM job."""
    path = os.pathsep.join([str(SHIMS), variables["PATH"]])
    return variables | {"PATH": path, "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7"}


@pytest.mark.parametrize("command", [pytest.param(command, id=command.where) for command in DISTINCT])
def test_command_runs(command: Command, clone, variables, cluster, online, request):
    text = adapted_text(command)
    folder = clone(text)
    if command.kind == "command":
        status, output = run_in(folder, text, variables | (online if "repo_id=" in text else {}))
    elif command.kind == "script":
        (folder / "job.sh").write_text(text)
        status, output = run_in_bash(folder, ["job.sh"], cluster)
    else:
        (folder / "block.py").write_text(text)
        if "from tortoise." in text:  # needs the libraries that tortoise-tts pins
            cache = request.config.cache.mkdir("references")
            paths = [tortoise_reference.packages(cache), tortoise_reference.source(cache), SHIMS / "python"]
            variables |= {"PYTHONPATH": os.pathsep.join(map(str, paths))}
            status, output = run_in_bash(folder, ["-c", "python block.py"], variables)
        else:
            status, output = run_in(folder, "python block.py", variables)
    assert status == 0, f"{command.where}: {text}\n{output}"
    # torchrun logs the traceback of its exit barrier where the node that holds the rendezvous store leaves first
    assert "Traceback" not in output or "Error waiting on exit barrier" in output, output


def test_recipe_of_another_codec_needs_no_tortoise(clone, variables):
    folder = clone("output_dir=pairs output_dir=candidates")
    for command in CODEC:
        text = adapted_text(command)
        if re.search(r"\b(train|evaluate)\.py", text):
            text += " tortoise.name_or_path=nowhere"
        status, output = run_in(folder, text, variables)
        assert status == 0, f"{command.where}: {text}\n{output}"
    (pairs,) = (folder / "outputs/codes").glob("codes-imported-*")
    manifest = read_manifest(pairs)
    assert (manifest.source, manifest.speech_vocab_size, manifest.code_rate) == ("imported", 2048, 12.5)
    (report,) = (folder / "outputs/evaluate").glob("*/report/metrics.json")
    metrics = json.loads(report.read_text())
    assert metrics["rerank"]["negative_quality"]["best"]["value"] == 0
    assert metrics["rerank"]["combination"]["judge"] == "negative_quality"
    assert metrics["rerank"]["texts"] == 8 and metrics["gallery"] == manifest.report["pairs"]["test"]
    assert metrics["data"]["fingerprint"] == manifest.fingerprint, "evaluate.py takes the pairs of the run"
    assert pq.read_table(folder / "ranked")["rank"].to_pylist().count(1) == 8
    (card,) = (folder / "outputs/push").glob("*/hub/README.md")
    assert "Tortoise's autoregressive" not in card.read_text() and "codec.frame_rate" in card.read_text()


def test_recipe_of_voices_trains_on_voices_and_ranks_by_them(clone, variables):
    folder = clone(" ".join(map(adapted_text, VOICE)))
    for command in VOICE:
        status, output = run_in(folder, adapted_text(command), variables)
        assert status == 0, f"{command.where}: {adapted_text(command)}\n{output}"
    metrics = json.loads((folder / "runs/voices/report/metrics.json").read_text())
    status, output = run_in(folder, "python evaluate.py checkpoint=runs/voices/model", variables)
    assert metrics["example"]["text"].replace(" ", "").isdigit(), "a reference, not a name"
    assert status == 0 and f"{metrics['text_to_speech'][WRONG_VOICE]:.3f}" in output, output
    assert metrics["data"]["settings"]["match"] == "voice" and 0 <= metrics["text_to_speech"][WRONG_VOICE] <= 1
    command = next(line for line in map(adapted_text, VOICE) if "references=" in line)
    for wrong, message in (
        (command.partition(" references=")[0], "references=null: reranker.voice needs clips"),
        (command.replace("runs/voices/model", "outputs/train/DATE/model"), "not one of voices for the 2048 codes"),
    ):
        status, output = run_in(folder, wrong, variables)
        assert status == 2 and message in output, output
    rows = pq.read_table(folder / "in_voice").to_pylist()
    reranker = Reranker.from_pretrained(folder / "runs/voices/model")
    clips = [
        row for row in pq.read_table(ROOT / "data/nano/voices.parquet").to_pylist() if row["voice"] == rows[0]["voice"]
    ]
    scores = [reranker.rank([clip["speech_ids"]], [[rows[0]["speech_ids"]]])[0].scores[0] for clip in clips[:16]]
    assert rows[0]["voice_score"] == pytest.approx(sum(scores) / 16, abs=1e-5)
    assert rows[0]["combined_score"] == pytest.approx(rows[0]["score"] + rows[0]["voice_score"])


def test_notebook_runs(clone, variables):
    folder, script = clone(""), ""
    notebook = json.loads((ROOT / "examples/quickstart.ipynb").read_text())
    for cell in (cell for cell in notebook["cells"] if cell["cell_type"] == "code"):
        source = re.sub(r"%pip .*", "pass", "".join(cell["source"]))
        if source.startswith("!clvp-train "):
            status, output = run_in(folder, adapted(source.replace("!clvp-train", "python train.py")), variables)
            assert status == 0, output
        else:
            script += f"{source}\n"
    (folder / "block.py").write_text(script)
    status, output = run_in(folder, "python block.py", variables)
    assert status == 0 and "among 23 sentences" in output and output.count("percentile") == 5, output
    assert (folder / "pick.wav").stat().st_size > 10_000


@pytest.mark.parametrize("block", [pytest.param(block, id=f"{block.page}:{block.line}") for block in BLOCKS])
def test_block_declares_its_language(block: Block):
    assert block.language in (*SHELL, *PYTHON, *SHOWN), f"unknown block language {block.language}"


def test_slurm_job_is_requeued_after_an_early_stop(clone, cluster):
    (script,) = (command for command in COMMANDS if command.kind == "script" and "#SBATCH" in "".join(command.lines))
    folder = clone("")
    (folder / "job.sh").write_text("\n".join(script.lines))
    for status, queued in ((1, False), (138, True)):
        run_in_bash(folder, ["job.sh"], cluster | {"SRUN_STATUS": str(status)})
        assert (folder / "scontrol.log").exists() == queued
    assert (folder / "scontrol.log").read_text() == "requeue 7\n"


@pytest.mark.parametrize("adaptation", ADAPTATIONS, ids=lambda adaptation: adaptation.pattern)
def test_every_adaptation_is_used(adaptation):
    lines = [line for command in COMMANDS if command.kind != "python" for line in command.lines]
    for other in ADAPTATIONS[: ADAPTATIONS.index(adaptation)]:
        lines = [re.sub(other.pattern, other.replacement, line) for line in lines]
    assert any(re.search(adaptation.pattern, line) for line in lines)
