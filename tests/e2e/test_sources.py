"""Training on several sources of speech codes, and on several folders of pairs."""

import os
import random
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clvp_train.pairs import read_manifest, read_pairs
from tests.e2e.commands import EVALUATE, GENERATE, ROOT, TRAIN, run
from tests.e2e.conftest import BUDGET, CORPUS, FEW_CANDIDATES
from tests.e2e.test_bad_input import refused
from tests.e2e.test_resume import LONG, WAITING, check_repeated_stops
from tests.e2e.test_train_and_evaluate import logged, report

MIXED = ["codes=mixed", "codes.recordings.path=recordings.parquet"]
MIXED += [setting.replace("codes.num", "codes.ar.num") for setting in CORPUS]
SHORT = [*BUDGET, "test=false", "hydra.run.dir=run"]


@pytest.fixture
def cwd(workplace):
    """With stored codes, in two voices, of all sentences but every tenth."""
    draw = random.Random(0)
    sentences = (workplace / "sentences.txt").read_text().splitlines()
    rows = [
        {"text": text, "voice": voice, "speech_ids": [draw.randrange(512) for _ in range(9)]}
        for number, text in enumerate(sentences)
        for voice in ("a", "b")
        if number % 10
    ]
    pq.write_table(pa.Table.from_pylist(rows), workplace / "recordings.parquet")
    (workplace / "waiting.py").write_text(WAITING)
    return workplace


def test_mixed_codes_train_and_are_evaluated(trained, cwd):
    done = run(TRAIN, [*MIXED, *BUDGET, "hub=local", "hydra.run.dir=run"], cwd)
    assert done.status == 0, done.stderr
    (recordings,) = cwd.glob("outputs/codes/sentences-txt-stored-*")
    assert read_manifest(recordings).report["skipped"] == {"not stored": 16}
    assert f"pairs found in outputs/codes/{trained.pairs.name}" in done.stdout, "the pairs of codes=ar"
    assert len(logged(cwd / "run", "val/R@1")) == len(logged(cwd / "run", "val/ar/R@1")) == 1
    metrics = report(cwd / "run")
    assert metrics["sets"]["ar"]["gallery"] > 1 and 0 <= metrics["sets"]["ar"]["text_to_speech"]["R@1"] <= 1
    assert "R@1 on other pairs" in (cwd / "run/report/report.md").read_text()
    assert metrics["data"]["codes"] == "stored" and metrics["rerank"]["candidates"] == 3, "candidates of the AR"
    card = (cwd / "run/hub/README.md").read_text()
    assert (
        "| speech codes | recordings (weight 1), ar (weight 1) |" in card and "evaluated on codes from a file" in card
    )
    again = [*MIXED, *FEW_CANDIDATES, "checkpoint=run/model", "data.eval_pairs=ar", "hydra.run.dir=evaluated"]
    done = run(EVALUATE, again, cwd)
    assert done.status == 0, done.stderr
    assert report(cwd / "evaluated")["data"]["codes"] == "ar" and report(cwd / "evaluated")["rerank"]["texts"] == 9


def test_a_mixed_run_of_two_processes_that_is_stopped_repeatedly_equals_an_undisturbed_run(cwd):
    settings = [*MIXED, *(setting for setting in LONG if setting not in CORPUS and not setting.startswith("codes."))]
    output = check_repeated_stops(cwd, settings, ranks=2)
    more = ["trust_run_folder=true", "trainer.max_steps=9", "codes=mixed", "codes.ar.weight=2", "trainer=cpu"]
    done = run(TRAIN, [f"resume={output}", *more], cwd, PYTHONPATH=f"{ROOT}{os.pathsep}{cwd}")
    assert done.status == 2 and "weights of the pairs ([1.0, 1.0] then, [1.0, 2.0] now)" in done.stderr, done.stderr


def test_folders_have_the_weights_of_any_form_of_the_setting(cwd):
    done = run(GENERATE, [*MIXED, "output_dir=pairs"], cwd)
    assert done.status == 0 and done.stdout.count("pairs: pairs/") == 2, done.stderr
    weighted = {
        "named": "pairs={recordings:pairs/recordings,ar:{path:pairs/ar,weight:3}}",
        "listed": "pairs=[pairs/recordings,{path:pairs/ar,weight:3}]",
        "equal": "pairs=[pairs/recordings,pairs/ar]",
    }
    losses = {}
    for name, setting in weighted.items():
        done = run(TRAIN, [setting, *SHORT, f"hydra.run.dir={name}"], cwd)
        assert done.status == 0, done.stderr
        losses[name] = logged(cwd / name), logged(cwd / name, "val/ar/R@1")
    assert losses["named"] == losses["listed"] != losses["equal"]


def test_a_source_can_be_added_or_be_for_evaluation_only(cwd):
    settings = [
        *MIXED,
        *SHORT,
        "codes.ar.num_candidates=0",
        "+codes@codes.more=stored",
        "codes.more.path=recordings.parquet",
    ]
    done = run(TRAIN, settings, cwd)
    assert done.status == 0, done.stderr
    assert len(logged(cwd / "run", "val/ar/R@1")) == len(logged(cwd / "run", "val/more/R@1")) == 1
    splits = [set(read_pairs(path)["split"].to_pylist()) for path in cwd.glob("outputs/codes/sentences-txt-ar-*")]
    assert {"val", "test"} in splits


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["codes.recordings.path=nowhere.parquet"], ["codes.path=nowhere.parquet: no such file"]),
        (["+codes@codes.clips=dvae"], ["no audio, but codes=dvae needs recordings"]),
        (["codes.ar.voice=x"], ["codes.ar.voice", "did you mean"]),
        (["codes.ar.weight=-1"], ["codes.ar.weight must be a number > 0"]),
        (["+codes.voices=x"], ["codes.voices: not a source of speech codes"]),
        (["codes.ar=null", "codes.recordings=null"], ["codes: no source of speech codes"]),
        (["data.eval_pairs=clips"], ["data.eval_pairs=clips", "recordings, ar"]),
    ],
    ids=lambda value: value[0].split("=")[0] if "=" in value[0] else "",
)
def test_a_bad_source_is_refused_before_codes_are_drawn(cwd, overrides, words):
    (cached,) = cwd.glob("outputs/codes/sentences-txt-ar-*")
    if "data.eval_pairs" not in overrides[0]:
        shutil.rmtree(cached)
    refused(TRAIN, [*MIXED, *BUDGET, *overrides], cwd, *words)
    assert not list(cwd.glob("outputs/codes/sentences-txt-ar-*")) or "data.eval_pairs" in overrides[0]


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ("pairs={a:{path:a,weigth:2},b:b}", ["not folders"]),
        ("pairs=[a,nowhere]", ["nowhere", "clvp_train.generate"]),
        (
            "pairs=[a,b]",
            ["' is in the t", " split of a and in the ", " split of b. Generate both with the same split."],
        ),
        ("pairs=[a,c]", ["c: its tokenizer differs from that of the pairs in a", "the same tokenizer"]),
    ],
)
def test_folders_that_do_not_belong_together(trained, cwd, pairs, words):
    shutil.copytree(trained.pairs, cwd / "a")
    stored = ["codes=stored", "codes.path=recordings.parquet", *(each for each in CORPUS if "codes." not in each)]
    if "b]" in pairs:
        assert run(GENERATE, [*stored, "split.test_percent=40", "output_dir=b"], cwd).status == 0
    if "c]" in pairs:
        tokenizer = ["corpus=text", "corpus.path=sentences.txt", "vocab_size=256", "output_dir=own"]
        assert run("clvp_train/train_tokenizer.py", tokenizer, cwd).status == 0
        assert run(GENERATE, [*stored, "tortoise.tokenizer=own", "output_dir=c"], cwd).status == 0
    refused(TRAIN, [pairs, *SHORT], cwd, *words)
