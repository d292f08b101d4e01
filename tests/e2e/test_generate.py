"""`python -m clvp_train.generate`: killed and resumed, on several ranks, on a full disk, and run again with other settings."""

import contextlib
import json
import os
import pty
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clvp_train.pairs import read_manifest, read_pairs
from tests.e2e.commands import GENERATE, Finished, Running, environment, run, start

TEXTS, KILLS = 32, 6
SETTINGS = ["corpus=text", "corpus.path=lines.txt", "num_candidates=2", "codes.shard_size=2", "codes.batch_size=4"]
SETTINGS += ["tortoise.sampling.max_codes=24", "tortoise.dtype=float32", "output_dir=pairs", "hydra.run.dir=run"]
JUDGE = ["codes/judge=recordings", "codes.judge.recordings=recordings.parquet"]
SETTINGS += JUDGE
ONE = [{}]
TWO = [{"RANK": str(rank), "WORLD_SIZE": "2"} for rank in range(2)]  # as set by torchrun


@dataclass(frozen=True)
class Undisturbed:
    folder: Path
    finished: Finished
    seconds: float  # from the first manifest to the end


def write_lines(folder: Path) -> None:
    lines = [f"line {number} {'with words ' * (number % 5)}" for number in range(TEXTS - 1)]
    folder.mkdir(exist_ok=True)
    (folder / "lines.txt").write_text("\n".join([*lines, "much too long a sentence " * 30]))
    recordings = {"text": lines, "voice": ["slt"] * len(lines), "speech_ids": [[1, 2, 3, 4, 5]] * len(lines)}
    pq.write_table(pa.table(recordings), folder / "recordings.parquet")


def start_ranks(folder: Path, ranks: list[dict[str, str]]) -> list[Running]:
    several = ["trainer=ddp_cpu"] if len(ranks) == 2 else []
    return [start(GENERATE, [*SETTINGS, *several], folder, **rank) for rank in ranks]


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def manifest_without_speed(folder: Path) -> dict:
    manifest = asdict(read_manifest(folder))
    assert manifest["complete"] and manifest["report"].pop("codes_per_second") > 0
    return manifest


def wait_until_begun(commands: list[Running], folder: Path) -> None:
    """Each run rewrites the manifest just before it draws."""
    file, started = folder / "pairs/manifest.json", time.time_ns()
    while not (file.exists() and file.stat().st_mtime_ns > started):
        if any(command.process.exitcode is not None for command in commands):
            return
        time.sleep(0.002)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Undisturbed:
    cwd = tmp_path_factory.mktemp("undisturbed")
    write_lines(cwd)
    command = start(GENERATE, SETTINGS, cwd)
    wait_until_begun([command], cwd)
    begun = time.monotonic()
    finished = command.finish()
    assert finished.status == 0, finished.stderr
    return Undisturbed(cwd / "pairs", finished, time.monotonic() - begun)


def test_report(undisturbed):
    rows = read_pairs(undisturbed.folder).to_pylist()
    lines = {line[:19].strip(): line[19:] for line in undisturbed.finished.stdout.splitlines()}
    lengths = [len(row["speech_ids"]) for row in rows]
    cut = sum(not row["finished"] for row in rows)
    assert len(rows) == 2 * (TEXTS - 1)
    assert all((row["quality"] is not None) == (row["voice"] == "slt") for row in rows)
    assert lines["utterances"].startswith("31 (train ") and lines["pairs"].startswith("62 (train ")
    assert lines["codes per pair"].startswith(f"{min(lengths)} to {max(lengths)}, median ")
    assert lines["codes per pair"].endswith(f"mean {sum(lengths) / 62:.1f}")
    assert lines["reached max_codes"] == f"{cut} ({cut / 62:.1%})"
    assert lines["skipped"] == "text too long: 1" and "× real time" in lines["speed"]
    assert lines["pairs: pairs"] == ""
    assert undisturbed.finished.stdout.count("candidates, ") == 1, "a single log line for a short run"
    (skipped,) = map(json.loads, (undisturbed.folder / "skipped.jsonl").read_text().splitlines())
    assert skipped["id"] == "000032" and "split it" in skipped["reason"]


@pytest.mark.parametrize("ranks", [ONE, TWO], ids=["one process", "two ranks"])
def test_kills_at_random_moments_do_not_change_the_bytes(undisturbed, tmp_path, ranks):
    seed = time.time_ns()
    print(f"seed of the delays: {seed}")
    draw, complete, killed = random.Random(seed), shards(undisturbed.folder), 0
    write_lines(tmp_path)
    while killed < KILLS:
        commands = start_ranks(tmp_path, ranks)
        wait_until_begun(commands, tmp_path)
        time.sleep(draw.uniform(0, undisturbed.seconds / 8))
        were_running = [command.kill() for command in commands]
        for name, data in shards(tmp_path / "pairs").items():
            assert data == complete[name], f"{name} differs from an undisturbed run"
        if any(were_running):
            killed += 1
        else:  # complete: start from scratch
            assert [command.finish().status for command in commands] == [0] * len(ranks)
            shutil.rmtree(tmp_path / "pairs")
    commands = start_ranks(tmp_path, ranks)
    for finished in [command.finish() for command in commands]:
        assert finished.status == 0, finished.stderr
    assert shards(tmp_path / "pairs") == complete
    assert manifest_without_speed(tmp_path / "pairs") == manifest_without_speed(undisturbed.folder)
    names = {path.relative_to(tmp_path / "pairs") for path in (tmp_path / "pairs").rglob("*")}
    assert names == {
        path.relative_to(undisturbed.folder) for path in undisturbed.folder.rglob("*") if ".arrow" not in path.parts
    }


def test_a_killed_rank_can_be_restarted(undisturbed, tmp_path):
    write_lines(tmp_path)
    first, second = start_ranks(tmp_path, TWO)
    wait_until_begun([first, second], tmp_path)
    time.sleep(undisturbed.seconds / 4)
    assert second.kill()
    time.sleep(1)
    assert first.process.exitcode is None, "it waits for the shards of the other rank"
    again = start(GENERATE, [*SETTINGS, "trainer=ddp_cpu"], tmp_path, **TWO[1])
    for finished in (first.finish(), again.finish()):
        assert finished.status == 0, finished.stderr
    assert shards(tmp_path / "pairs") == shards(undisturbed.folder)


def test_full_disk_keeps_finished_shards(undisturbed, tmp_path):
    write_lines(tmp_path)
    complete = shards(undisturbed.folder)
    largest = max(complete, key=lambda name: len(complete[name]))
    # Hydra's copies of the config would exceed the limit too
    done = run(GENERATE, [*SETTINGS, "hydra.output_subdir=null"], tmp_path, file_limit=len(complete[largest]) - 1)
    assert done.status == 2 and "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: pairs/{largest}: cannot be written (File too large). Raise the limit")
    finished = shards(tmp_path / "pairs")
    assert 0 < len(finished) < len(complete) and finished == {name: complete[name] for name in finished}
    numbers = [
        name.partition("-")[2] for name in complete.keys() - finished.keys()
    ]  # of shards without all of their files
    num_done = 16 - len(set(numbers))
    assert not list((tmp_path / "pairs").rglob("*partial*"))
    done = run(GENERATE, SETTINGS, tmp_path)
    assert done.status == 0 and f"generating 16 shards in pairs, {num_done} done" in done.stdout
    assert shards(tmp_path / "pairs") == complete


def test_equal_settings_reuse_the_folder_and_others_are_refused(undisturbed, tmp_path):
    write_lines(tmp_path)
    shutil.copytree(undisturbed.folder, tmp_path / "pairs")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "pairs").rglob("*")}
    done = run(GENERATE, SETTINGS, tmp_path)
    assert done.status == 0 and "pairs found in pairs" in done.stdout
    for others, names in (
        (["num_candidates=3"], ["codes.num_candidates (2 in", "codes.num_eval_candidates (2 in"]),
        (["tortoise.sampling.temperature=0.5"], ["tortoise.sampling.temperature (0.8 in the folder, 0.5 now)"]),
        (["split.test_percent=7"], ["split.test_percent (5.0 in the folder, 7.0 now)"]),
    ):
        done = run(GENERATE, [*SETTINGS, *others], tmp_path)
        assert done.status == 2 and "error: pairs: contains pairs made with other settings" in done.stderr
        assert all(name in done.stderr for name in names)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "pairs").rglob("*")} == times


def test_num_candidates_needs_the_ar(tmp_path):
    write_lines(tmp_path)
    done = run(GENERATE, [*(setting for setting in SETTINGS if setting not in JUDGE), "codes=dvae"], tmp_path)
    assert done.status == 2 and "error: num_candidates: " in done.stderr


def test_default_folder_is_named_by_corpus_and_fingerprint(undisturbed, tmp_path):
    write_lines(tmp_path)
    done = run(GENERATE, [*SETTINGS, "output_dir=null", "paths.codes=kept"], tmp_path)
    assert done.status == 0, done.stderr
    (folder,) = (tmp_path / "kept").glob("[!.]*")
    assert folder.name == f"lines-txt-ar-{read_manifest(folder).fingerprint[:12]}"
    assert done.stdout.splitlines()[-1] == f"pairs: kept/{folder.name}"
    assert shards(folder) == shards(undisturbed.folder)


def test_progress_bar_on_a_terminal(tmp_path):
    """In a pseudo-terminal and a new Python process."""
    write_lines(tmp_path)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "clvp_train.generate", *SETTINGS],
        cwd=tmp_path,
        env=environment(tmp_path, TERM="xterm"),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = bytearray()
    with contextlib.suppress(OSError):  # end of the terminal
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    assert process.wait(60) == 0, shown.decode()
    counts = {int(count) for count in re.findall(r"(\d+)/64", shown.decode())}
    assert len(counts) > 10 and max(counts) == 64, "it advances with each candidate"
    assert "codes/s" in shown.decode() and "× real time" in shown.decode()
