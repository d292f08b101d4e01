"""A bad setting or a bad file ends in one line on stderr, without a traceback, and with exit status 2."""

import shutil

import pytest
import torch

from tests.e2e.commands import EVALUATE, GENERATE, RERANK, ROOT, TRAIN, run
from tests.e2e.conftest import BUDGET, CORPUS, FEW_CANDIDATES

TEXTS = [*CORPUS, *BUDGET]


def refused(script, overrides, cwd, *words, **settings):
    done = run(script, overrides, cwd, **settings)
    assert done.status == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    for word in words:
        assert word in errors[0], errors[0]
    assert not list(cwd.glob("outputs/train/*/model"))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trainer.max_epoch=3"], ["trainer.max_epoch", "Did you mean trainer.max_epochs?"]),
        (["trianer=cpu"], ["'trianer'", "did you mean trainer?"]),
        (["data.batchsize=8"], ["data.batchsize", "did you mean data.batch_size?"]),
        (["zzz=1"], ["'zzz'", "--help lists the settings"]),
        (["trainer=gpus"], ["trainer/gpus", "cpu ddp ddp_cpu gpu"]),
        (["optim.lr=[1"], ["'[1'"]),
        (["trainer.max_epochs=abc"], ["trainer.max_epochs must be an integer", "got abc"]),
        (["trainer.num_nodes=null"], ["trainer.num_nodes"]),
        (["data.batch_size=1", "seed=-1"], ["data.batch_size must be an integer ≥ 2", "seed must be an integer ≥ 0"]),
        (["trainer.gradient_clip_val=1"], ["trainer.gradient_clip_val", "optim.gradient_clip_norm"]),
        (["model=pretrained"], ["model.checkpoint: not set. Add model.checkpoint="]),
        (["loss._target_=nowhere.Loss"], ["loss._target_=nowhere.Loss", "No module named 'nowhere'"]),
        (["trainer.precision=17"], ["trainer: Precision 17"]),
        (["trainer.val_check_interval=100000"], ["trainer.val_check_interval=100000", "between 1 and the 3 batches"]),
        (["model.config.text_config.hidden_size=100000"], ["model: does not fit into memory"]),
        (["trainer.devices=0"], ["trainer: ", "devices"]),
        (["trainer=ddp_cpu", "trainer.devices=999"], ["trainer.devices=999", "CPU cores"]),
        (["codes.voices=nowhere"], ["codes.voices=nowhere"]),
        (["data.batch_size=5000"], ["data.batch_size=5000", "training texts"]),
        (["data.batch_size=33", "trainer=ddp_cpu"], ["data.batch_size=33", "2 processes"]),
        (["split.test_percent=0"], ["split.test_percent"]),
        (["split.val_percent=0"], ["split.val_percent"]),
        (["tortoise.name_or_path=nowhere/at/all"], ["nowhere/at/all"]),
        (["tortoise.device=cuda:99"], ["tortoise.device=cuda:99: not available"]),
        (["model.config.projection_dim=0"], ["projection_dim"]),
        (["+model.config.text_config.vocab_size=7"], ["7 text tokens", "256"]),
        (["pairs=nowhere"], ["nowhere", "clvp_train.generate"]),
        (["corpus.path=nowhere.txt"], ["nowhere.txt", "corpus.path"]),
        (["corpus.path=~/2024_01_15/[v2] (it's)=Jürgen.txt"], ["/2024_01_15/[v2] (it's)=Jürgen.txt"]),
        (
            [
                *(
                    "data.batch_size=5000",
                    "split.val_percent=0",
                    "tortoise.tokenizer=nowhere",
                    "hub=local",
                    "hub.language=jp",
                ),
                *("rerank.recordings=gone", "reference=lost", "model=pretrained", "model.checkpoint=missing.ckpt"),
            ],
            [
                "data.batch_size=5000",
                "val split is empty",
                "nowhere",
                "hub.language=jp",
                "=gone",
                "lost",
                "missing.ckpt",
            ],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "=" in value[0] else "",
)
def test_a_bad_setting_of_train(workplace, overrides, words):
    refused(TRAIN, [*TEXTS, *overrides], workplace, *words)


def test_a_sweep_of_several_processes(workplace):
    refused(TRAIN, ["--multirun", *TEXTS, "trainer=ddp_cpu"], workplace, "--multirun", "torchrun")


def test_a_diverged_training(workplace):
    refused(TRAIN, [*TEXTS, "optim.lr=1e30", "optim.warmup_ratio=0"], workplace, "diverged", "lower optim.lr")


def test_recordings_are_needed_for_the_dvae(workplace):
    overrides = ["corpus=text", "corpus.path=sentences.txt", "codes=dvae"]
    refused(GENERATE, overrides, workplace, "utterance 000001: no audio", "Use codes=ar")


def test_a_text_beyond_the_limit_of_the_ar(workplace):
    with (workplace / "sentences.txt").open("a") as file:
        file.write("much too long a sentence " * 30 + "\n")
    strict = [*TEXTS, "codes.bad_rows=error"]
    refused(TRAIN, strict, workplace, "utterance 000153", "'much too long", "split it", "codes.bad_rows=skip")


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ("audio,text\nmissing.wav,a text\n", ["manifest.csv, line 2", "missing.wav does not exist"]),
        ("audio,text\nnoise.wav,a text\n", ["noise.wav: cannot be read", "wav, flac, ogg, opus or mp3"]),
        ("audio,text\nok.flac,a text\nok.flac,  \n", ["manifest.csv, line 3", "the transcript is empty"]),
        ("file,text\nok.flac,a text\n", ["manifest.csv", "no column 'audio'", "columns: file, text"]),
        ("audio,text\n", ["manifest.csv", "no utterances"]),
    ],
    ids=["missing audio", "unreadable audio", "empty transcript", "missing column", "no rows"],
)
def test_a_bad_manifest(tmp_path, manifest, words):
    (tmp_path / "manifest.csv").write_text(manifest)
    (tmp_path / "noise.wav").write_bytes(b"RIFF this is no wav at all")
    shutil.copy(ROOT / "data/nano/voices/awb/1.flac", tmp_path / "ok.flac")
    refused(GENERATE, ["corpus=manifest", "corpus.path=manifest.csv", "codes=dvae"], tmp_path, *words)


def test_evaluate_asks_for_its_checkpoint(workplace):
    refused(EVALUATE, CORPUS, workplace, "checkpoint: not set. Add checkpoint=")


@pytest.mark.parametrize("name", ["missing.ckpt", "./missing", "other.ckpt", "notes.pth", "bert", "sentences.txt"])
def test_a_checkpoint_of_another_kind(workplace, name):
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, workplace / "other.ckpt")
    (workplace / "notes.pth").write_text("no weights, just notes")
    (workplace / "bert").mkdir()
    (workplace / "bert/config.json").write_text('{"model_type": "bert", "hidden_size": 8}')
    refused(EVALUATE, [f"checkpoint={name}", *CORPUS], workplace, name.removeprefix("./"), "a Hub id")


def test_a_model_that_knows_other_codes_than_the_pairs(trained, workplace):
    checkpoint = workplace / "narrow"
    shutil.copytree(trained.output / "model", checkpoint)
    from clvp_train import CLVPModel

    model = CLVPModel.from_pretrained(checkpoint)
    model.speech_model.resize_token_embeddings(100)
    model.config.speech_config.vocab_size = 100
    model.save_pretrained(checkpoint)
    refused(EVALUATE, [f"checkpoint={checkpoint}", *CORPUS], workplace, "100 speech tokens", "have 2048", "tortoise=")


def test_a_damaged_shard_is_named_where_it_cannot_be_made_again_and_made_again_where_it_can(workplace):
    (shard,) = workplace.glob("outputs/codes/sentences-txt-ar-*/train-*.parquet")
    shard.write_bytes(shard.read_bytes()[:1000])
    shutil.rmtree(shard.parent / ".arrow", ignore_errors=True)
    refused(TRAIN, [f"pairs={shard.parent}", *BUDGET], workplace, shard.name, "run the same generate command again")
    done = run(TRAIN, [*TEXTS, "test=false"], workplace)
    assert done.status == 0 and f"{shard.name}: missing or damaged" in done.stdout


@pytest.mark.parametrize(
    ("script", "more", "limit", "advice"),
    [
        (TRAIN, TEXTS, 100_000, "free disk space and resume"),
        (EVALUATE, [*CORPUS, *FEW_CANDIDATES, "checkpoint={run}/model"], 30_000, "Run the same command again."),
        (
            RERANK,
            ["checkpoint={run}/model", "candidates={pairs}", "output_dir=ranked"],
            3000,
            "Run the same command again.",
        ),
        ("clvp_train/push.py", ["checkpoint={run}", "hub=local"], 30_000, "Run the same command again."),
    ],
    ids=["train", "evaluate", "rerank", "push"],
)
def test_a_full_disk(trained, workplace, script, more, limit, advice):
    overrides = [setting.format(run=trained.output, pairs=trained.pairs) for setting in more]
    refused(script, overrides, workplace, "cannot be written (", advice, file_limit=limit)
