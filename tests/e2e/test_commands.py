"""Everything else that a user can do through the commands."""

import os
import pty
import socket
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import yaml

from clvp_train.pairs import read_manifest, read_pairs
from tests.e2e.commands import GENERATE, ROOT, TRAIN, environment, execute, run
from tests.e2e.conftest import BUDGET, CORPUS

SHORT = [*CORPUS, *BUDGET, "trainer.max_steps=1", "test=false", "hydra.run.dir=run"]


def test_help_lists_groups_and_settings(tmp_path):
    done = run(GENERATE, ["--help"], tmp_path)
    assert done.status == 0
    assert "corpus: asterisk, folder, hub, ljspeech, manifest, nano, nano_text, text" in done.stdout
    assert "num_candidates: " in done.stdout and "--config-dir" in done.stdout
    purpose, _, *examples = done.stdout.splitlines()[:5]
    assert purpose.endswith(".") and all(example.strip().startswith("python ") for example in examples)


def test_generate_writes_the_pairs_that_train_finds(trained, tmp_path, workplace):
    command = ["-m", "clvp_train.generate", *CORPUS, "output_dir=elsewhere/pairs"]
    done = execute(command, workplace)
    assert done.status == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "pairs: elsewhere/pairs"
    folder = workplace / "elsewhere/pairs"
    assert read_manifest(folder).shards == read_manifest(trained.pairs).shards
    assert read_pairs(folder).equals(read_pairs(trained.pairs))
    done = run(TRAIN, ["pairs=" + str(folder), *BUDGET, "trainer.max_steps=1", "test=false"], workplace)
    assert done.status == 0, done.stderr


def test_recordings_of_a_manifest_train_through_the_dvae(tmp_path):
    draw, rows = np.random.default_rng(0), ["audio,text"]
    for number in range(40):
        tone = np.sin(np.arange(6000 + 300 * number) * draw.uniform(0.02, 0.4)) * draw.uniform(0.1, 0.5)
        soundfile.write(tmp_path / f"{number}.wav", tone + draw.normal(0, 0.01, len(tone)), 22_050)
        rows.append(f"{number}.wav,recording number {number}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    corpus = [
        "corpus=manifest",
        "corpus.path=manifest.csv",
        "codes=dvae",
        "split.test_percent=20",
        "split.val_percent=20",
    ]
    done = run(TRAIN, [*corpus, *BUDGET, "data.batch_size=8", "hydra.run.dir=run"], tmp_path)
    assert done.status == 0, done.stderr
    assert (tmp_path / "run/report/metrics.json").exists()
    (folder,) = (tmp_path / "outputs/codes").glob("[!.]*")
    assert read_manifest(folder).source == "dvae" and read_pairs(folder).num_rows == 40


def test_a_users_own_group_file_is_found_by_config_dir(workplace):
    (workplace / "mine/optim").mkdir(parents=True)
    (workplace / "mine/optim/gentle.yaml").write_text("defaults:\n  - nano\nlr: 1.25e-4\n")
    done = run(TRAIN, ["--config-dir", "mine", "optim=gentle", *SHORT], workplace)
    assert done.status == 0, done.stderr
    config = yaml.safe_load((workplace / "run/config/config.yaml").read_text())
    assert config["optim"]["lr"] == 1.25e-4 and config["optim"]["weight_decay"] == 0.1


def test_a_sweep_trains_one_model_a_value(workplace):
    sweep = ["--multirun", "optim.lr=1e-3,1e-4", "hydra.sweep.dir=sweep"]
    done = run(TRAIN, [*sweep, *CORPUS, *BUDGET, "trainer.max_steps=1", "test=false"], workplace)
    assert done.status == 0, done.stderr
    assert all((workplace / f"sweep/{job}/model/model.safetensors").exists() for job in (0, 1))


def test_a_terminal_that_is_not_utf8(workplace):
    """Progress bars and the table of the evaluation; codes are drawn anew for the bar of the candidates."""
    screen, terminal = pty.openpty()
    arguments = [str(ROOT / TRAIN), *CORPUS, *BUDGET, "trainer.max_steps=1", "hydra.run.dir=run", "codes.seed=1"]
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=workplace,
        env=environment(workplace, PYTHONIOENCODING="ascii"),
        **dict.fromkeys(("stdin", "stdout", "stderr"), terminal),
    )
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(screen, 65536):
            shown += part
    except OSError:  # Linux: the process has closed the terminal
        pass
    assert process.wait() == 0 and "report: " in shown.decode(), shown
    assert (workplace / "run/model/model.safetensors").exists()


@pytest.fixture
def network():
    """Whatever asks for the network is sent here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


def proxies(server):
    address = f"http://127.0.0.1:{server.getsockname()[1]}"
    return {f"{kind}_PROXY": address for kind in ("HTTP", "HTTPS", "ALL")} | {"NO_PROXY": "", "WANDB_BASE_URL": ""}


def was_asked(server):
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_wandb_without_a_key_stays_offline_and_asks_nobody(workplace, network):
    extra = {key: value for key, value in proxies(network).items() if value or key == "NO_PROXY"}
    done = run(TRAIN, [*SHORT, "logger=wandb"], workplace, **extra)
    assert done.status == 0, done.stderr
    (offline,) = (workplace / "run/wandb").glob("offline-run-*")
    assert list(offline.glob("*.wandb")) and not was_asked(network)
    assert not (workplace / ".netrc").exists()


@pytest.mark.parametrize(
    ("settings", "offline"),
    [
        ({}, True),
        ({"WANDB_API_KEY": "0" * 40}, False),
        ({"WANDB_API_KEY": "0" * 40, "WANDB_MODE": "offline"}, True),
        ({"WANDB_MODE": "disabled"}, False),
    ],
)
def test_wandb_decides_by_mode_and_key(tmp_path, network, settings, offline):
    script = tmp_path / "decide.py"
    script.write_text("from clvp_train.training import WandbLog\nprint('offline:', WandbLog(project='p')._offline)\n")
    extra = {key: value for key, value in proxies(network).items() if value or key == "NO_PROXY"}
    done = run(str(script), [], tmp_path, **extra, **settings)
    assert done.status == 0, done.stderr
    assert f"offline: {offline}" in done.stdout
    assert not offline or not was_asked(network)


def test_wandb_that_is_disabled_writes_nothing(workplace):
    done = run(TRAIN, [*SHORT, "logger=wandb"], workplace, WANDB_MODE="disabled")
    assert done.status == 0, done.stderr
    assert not list((workplace / "run").glob("wandb/*run-*"))


def test_the_commands_run_from_the_package_too(tmp_path):
    for name in ("train", "evaluate"):
        done = run(f"clvp_train/{name}.py", ["--help"], tmp_path)
        assert done.status == 0 and (ROOT / f"{name}.py").exists()
