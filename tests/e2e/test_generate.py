"""`python -m clvp_train.generate` as a user lives with it: killed, on several ranks, on a full disk, typed again with other settings."""

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
from dataclasses import dataclass
from pathlib import Path

import pytest

from clvp_train.pairs import read_manifest, read_pairs
from tests.e2e.commands import GENERATE, Finished, Running, environment, run, start

TEXTS = 32
SETTINGS = ["corpus=text", "corpus.path=lines.txt", "num_candidates=2", "codes.shard_size=2", "codes.batch_size=4"]
SETTINGS += ["tortoise.sampling.max_codes=24", "tortoise.dtype=float32", "output_dir=pairs", "hydra.run.dir=run"]
ONE = [{}]
TWO = [{"RANK": str(rank), "WORLD_SIZE": "2"} for rank in range(2)]  # as torchrun says it


@dataclass(frozen=True)
class Undisturbed:
    folder: Path
    finished: Finished
    seconds: float  # from the first manifest to the end


def write_lines(folder: Path) -> None:
    lines = [f"line {number} {'with words ' * (number % 5)}" for number in range(TEXTS - 1)]
    folder.mkdir(exist_ok=True)
    (folder / "lines.txt").write_text("\n".join([*lines, "much too long a sentence " * 30]))


def start_ranks(folder: Path, ranks: list[dict[str, str]]) -> list[Running]:
    several = ["trainer=ddp_cpu"] if len(ranks) == 2 else []
    return [start(GENERATE, [*SETTINGS, *several], folder, **rank) for rank in ranks]


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("pairs-*")}


def manifest_without_speed(folder: Path) -> dict:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["complete"] and manifest["report"].pop("codes_per_second") > 0
    return manifest


def wait_until_begun(commands: list[Running], folder: Path) -> None:
    """Every start writes the manifest anew once it is about to draw."""
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


def test_the_report_says_what_was_made(undisturbed):
    rows = read_pairs(undisturbed.folder).to_pylist()
    lines = {line[:19].strip(): line[19:] for line in undisturbed.finished.stdout.splitlines()}
    lengths = [len(row["speech_ids"]) for row in rows]
    cut = sum(not row["finished"] for row in rows)
    assert len(rows) == 2 * (TEXTS - 1)
    assert lines["utterances"].startswith("31 (train ") and lines["pairs"].startswith("62 (train ")
    assert lines["codes a pair"].startswith(f"{min(lengths)} to {max(lengths)}, median ")
    assert lines["codes a pair"].endswith(f"mean {sum(lengths) / 62:.1f}")
    assert lines["ran into the limit"] == f"{cut} ({cut / 62:.1%})"
    assert lines["skipped"] == "text too long: 1" and "× real time" in lines["speed"]
    assert lines["pairs: pairs"] == ""
    assert undisturbed.finished.stdout.count("candidates, ") == 16, "a log line a shard"
    (skipped,) = map(json.loads, (undisturbed.folder / "skipped.jsonl").read_text().splitlines())
    assert skipped["id"] == "000032" and "split it" in skipped["reason"]


@pytest.mark.parametrize("ranks", [ONE, TWO], ids=["one process", "two ranks"])
def test_killed_at_ten_random_moments_it_goes_on_to_the_same_bytes(undisturbed, tmp_path, ranks):
    seed = time.time_ns()
    print(f"seed of the moments: {seed}")
    draw, whole, killed = random.Random(seed), shards(undisturbed.folder), 0
    write_lines(tmp_path)
    while killed < 10:
        commands = start_ranks(tmp_path, ranks)
        wait_until_begun(commands, tmp_path)
        time.sleep(draw.uniform(0, undisturbed.seconds / 8))
        were_running = [command.kill() for command in commands]
        for name, data in shards(tmp_path / "pairs").items():
            assert data == whole[name], f"{name} is not what an undisturbed run writes"
        if any(were_running):
            killed += 1
        else:  # it has come to its end by now: from the start again
            assert [command.finish().status for command in commands] == [0] * len(ranks)
            shutil.rmtree(tmp_path / "pairs")
    commands = start_ranks(tmp_path, ranks)
    for finished in [command.finish() for command in commands]:
        assert finished.status == 0, finished.stderr
    assert shards(tmp_path / "pairs") == whole
    assert manifest_without_speed(tmp_path / "pairs") == manifest_without_speed(undisturbed.folder)
    names = {path.relative_to(tmp_path / "pairs") for path in (tmp_path / "pairs").rglob("*")}
    assert names == {
        path.relative_to(undisturbed.folder) for path in undisturbed.folder.rglob("*") if ".arrow" not in path.parts
    }


def test_a_killed_rank_costs_the_others_nothing(undisturbed, tmp_path):
    write_lines(tmp_path)
    first, second = start_ranks(tmp_path, TWO)
    wait_until_begun([first, second], tmp_path)
    time.sleep(undisturbed.seconds / 4)
    assert second.kill()
    time.sleep(1)
    assert first.process.exitcode is None, "it waits for the shards of the other"
    again = start(GENERATE, [*SETTINGS, "trainer=ddp_cpu"], tmp_path, **TWO[1])
    for finished in (first.finish(), again.finish()):
        assert finished.status == 0, finished.stderr
    assert shards(tmp_path / "pairs") == shards(undisturbed.folder)


def test_a_full_disk_is_told_and_costs_no_finished_shard(undisturbed, tmp_path):
    write_lines(tmp_path)
    whole = shards(undisturbed.folder)
    largest = max(whole, key=lambda name: len(whole[name]))
    # Hydra's own copies of the config would be too large too
    done = run(GENERATE, [*SETTINGS, "hydra.output_subdir=null"], tmp_path, file_limit=len(whole[largest]) - 1)
    assert done.status == 2 and "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: pairs/{largest} cannot be written (File too large): raise the limit")
    assert "finished shards are kept" in error
    finished = shards(tmp_path / "pairs")
    assert 0 < len(finished) < 16 and finished == {name: whole[name] for name in finished}
    assert not list((tmp_path / "pairs").rglob("*partial*"))
    done = run(GENERATE, SETTINGS, tmp_path)
    assert done.status == 0 and f"{len(finished)} of 16 shards are there already" in done.stdout
    assert shards(tmp_path / "pairs") == whole


def test_typed_again_it_finds_its_pairs_and_other_settings_are_refused(undisturbed, tmp_path):
    write_lines(tmp_path)
    shutil.copytree(undisturbed.folder, tmp_path / "pairs")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "pairs").rglob("*")}
    done = run(GENERATE, SETTINGS, tmp_path)
    assert done.status == 0 and "pairs found in pairs" in done.stdout
    for others, told in (
        (["num_candidates=3"], "codes.num_candidates (2 there, 3 now), codes.num_eval_candidates (2 there, 3 now)"),
        (["tortoise.sampling.temperature=0.5"], "tortoise.sampling.temperature (0.8 there, 0.5 now)"),
        (["split.test_percent=7"], "split.test_percent (5.0 there, 7.0 now)"),
    ):
        done = run(GENERATE, [*SETTINGS, *others], tmp_path)
        assert done.status == 2 and "set output_dir to another folder" in done.stderr
        assert f"error: pairs holds pairs made from something else: {told};" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "pairs").rglob("*")} == times


def test_one_number_of_candidates_is_for_the_ar(tmp_path):
    write_lines(tmp_path)
    done = run(GENERATE, [*SETTINGS, "codes=dvae"], tmp_path)
    assert done.status == 2 and "error: num_candidates=… is for codes=ar" in done.stderr
    done = run(GENERATE, [*SETTINGS, "num_candidates=0"], tmp_path)
    assert done.status == 2 and "error: codes.num_candidates=0: set it to a whole number, 1 or more" in done.stderr


def test_without_an_output_dir_the_folder_is_named_by_corpus_and_fingerprint(undisturbed, tmp_path):
    write_lines(tmp_path)
    done = run(GENERATE, [*SETTINGS, "output_dir=null", "paths.codes=kept"], tmp_path)
    assert done.status == 0, done.stderr
    (folder,) = (tmp_path / "kept").iterdir()
    assert folder.name == f"lines-txt-ar-{read_manifest(folder).fingerprint[:12]}"
    assert done.stdout.splitlines()[-1] == f"pairs: kept/{folder.name}"
    assert shards(folder) == shards(undisturbed.folder)


def test_a_bar_moves_for_those_who_watch(tmp_path):
    """In a terminal of its own, with python started anew."""
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
    with contextlib.suppress(OSError):  # the terminal's end
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    assert process.wait(60) == 0, shown.decode()
    counts = {int(count) for count in re.findall(r"(\d+)/64", shown.decode())}
    assert len(counts) > 10 and max(counts) == 64, "it moves with the candidates, not with the shards"
    assert "codes/s" in shown.decode() and "× real time" in shown.decode()
