"""`train.py` and `evaluate.py` on one run: its folder, report, model and checkpoints."""

import csv
import json

import pytest
import torch
import yaml
from transformers import ClvpTokenizer

from clvp_train import CLVPModel
from clvp_train.models import load_clvp, weights_digest
from clvp_train.report import read_metrics
from tests.e2e.commands import EVALUATE, ROOT, TRAIN, execute, run
from tests.e2e.conftest import BUDGET, CORPUS, FEW_CANDIDATES

RECALLS = ["R@1", "R@5", "R@10", "MRR"]
CHECKPOINTS = {"last.ckpt", "before-last.ckpt", "best-step-3.ckpt"}


def report(output):
    return read_metrics(output / "report")


def logged(output, name="train/loss"):
    with (output / "logs" / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def only(folder):
    (child,) = folder.iterdir()
    return child


def numbers(metrics):
    """All but the name of the checkpoint."""
    return {key: value for key, value in metrics.items() if key != "checkpoint"}


def test_the_run_folder_has_the_documented_contents(trained):
    assert {path.name for path in trained.output.iterdir()} >= {"checkpoints", "model", "report", "config", "logs"}
    assert {path.name for path in (trained.output / "checkpoints").iterdir()} == CHECKPOINTS
    visible = {path.name for path in trained.cwd.iterdir() if path.name not in (".cache", ".config")}
    assert visible == {"sentences.txt", "outputs"}, "no other files"


def test_names_of_checkpoints_match_their_steps(trained):
    for name, step in (("last", 4), ("best-step-3", 3)):
        stored = torch.load(trained.output / f"checkpoints/{name}.ckpt", weights_only=True)
        assert stored["global_step"] == step and "model.logit_scale" in stored["state_dict"]


def test_the_model_folder_is_the_best_checkpoint_in_transformers_format(trained):
    model, info = CLVPModel.from_pretrained(trained.output / "model", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    best = load_clvp(trained.output / "checkpoints" / "best-step-3.ckpt").state_dict()
    assert all(torch.equal(tensor, best[key]) for key, tensor in model.state_dict().items())
    tokenizer = ClvpTokenizer.from_pretrained(trained.output / "model")
    bundled = ClvpTokenizer.from_pretrained(ROOT / "data/nano/tortoise")
    text = "and four hundred pomegranates"
    assert tokenizer(text)["input_ids"] == bundled(text)["input_ids"]
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    assert model(input_ids=ids, speech_ids=torch.tensor([[1, 2, 3]])).logits_per_text.isfinite().all()


def test_the_metrics_have_their_schema_and_origin(trained):
    metrics = report(trained.output)
    assert metrics["split"] == "test" and metrics["chance_R@1"] == 1 / metrics["gallery"]
    assert metrics["gallery"] % 2 == 1, "must be odd, so that the two-process test repeats a text"
    for direction in ("text_to_speech", "speech_to_text"):
        assert list(metrics[direction]) == [*RECALLS, "median_rank", "mean_rank"]
        assert all(0 <= metrics[direction][name] <= 1 for name in RECALLS)
        assert 1 <= metrics[direction]["mean_rank"] <= metrics["gallery"]
    assert metrics["checkpoint"] == "checkpoints/best-step-3.ckpt"  # relative to the run folder
    assert metrics["weights"] == weights_digest(load_clvp(trained.output / "model"))
    manifest = json.loads((trained.pairs / "manifest.json").read_text())
    how = {"tortoise": "tortoise", "settings": manifest["settings"], "report": manifest["report"]}
    how["report"].pop("codes_per_second")
    assert metrics["data"] == {"corpus": "sentences.txt", "codes": "ar", "fingerprint": manifest["fingerprint"]} | how
    assert "R@1" in trained.finished.stdout and "report/index.html" in trained.finished.stdout
    table = json.loads((trained.output / "model" / "score_table.json").read_text())
    assert {name: table[name] for name in metrics["scores"]["table"]} == metrics["scores"]["table"]


def test_config_and_logs_record_the_run(trained):
    config = yaml.safe_load((trained.output / "config" / "config.yaml").read_text())
    assert config["data"]["batch_size"] == 32 and config["trainer"]["max_steps"] == 4
    overrides = yaml.safe_load((trained.output / "config" / "overrides.yaml").read_text())
    assert "trainer.max_steps=4" in overrides
    hparams = yaml.safe_load((trained.output / "logs" / "hparams.yaml").read_text())
    assert hparams["optim"]["lr"] == config["optim"]["lr"]
    assert len(logged(trained.output)) == 4 and len(logged(trained.output, "val/R@1")) == 1
    metrics = report(trained.output)
    recalls = [metrics[direction]["R@1"] for direction in ("text_to_speech", "speech_to_text")]
    assert logged(trained.output, "test/R@1") == pytest.approx([sum(recalls) / 2])


@pytest.mark.parametrize("checkpoint", ["checkpoints/best-step-3.ckpt", "model"])
def test_evaluate_reproduces_the_metrics_of_the_training_run(trained, workplace, checkpoint):
    path = workplace / "R&B [v2]" / checkpoint.replace("best-step-", "best-step=")  # as earlier versions named it
    path.parent.mkdir(parents=True)
    path.symlink_to(trained.output / checkpoint)
    done = run(EVALUATE, [f"checkpoint={path}", *CORPUS, *FEW_CANDIDATES, "hydra.run.dir=evaluated"], workplace)
    assert done.status == 0, done.stderr
    metrics = report(workplace / "evaluated")
    assert numbers(metrics) == numbers(report(trained.output)) and metrics["checkpoint"] == str(path)


def test_another_checkpoint_has_other_metrics(trained, workplace):
    path = trained.output / "checkpoints/last.ckpt"
    done = run(EVALUATE, [f"checkpoint={path}", *CORPUS, *FEW_CANDIDATES, "hydra.run.dir=evaluated"], workplace)
    assert done.status == 0 and numbers(report(workplace / "evaluated")) != numbers(report(trained.output))


def test_a_second_run_reuses_the_pairs_and_reproduces_the_first(trained, workplace):
    done = run(TRAIN, [*CORPUS, *BUDGET], workplace)
    assert done.status == 0, done.stderr
    assert "pairs found in" in done.stdout and "codes/s" not in done.stderr
    output = only(workplace / "outputs" / "train")
    assert logged(output) == logged(trained.output) and numbers(report(output)) == numbers(report(trained.output))


def test_another_seed_trains_another_model(trained, workplace):
    done = run(TRAIN, [*CORPUS, *BUDGET, "seed=1", "test=false"], workplace)
    assert "pairs found in" in done.stdout
    assert logged(only(workplace / "outputs" / "train"))[0] != logged(trained.output)[0]


def test_two_processes_train_and_evaluate_as_one(trained, workplace):
    """Real processes over gloo: losses are those of the same global batches, and retrieval ranks all texts."""
    pair = ["trainer=ddp_cpu", "trainer.devices=2"]
    done = execute([str(ROOT / TRAIN), *CORPUS, *BUDGET, *pair], workplace)
    assert done.status == 0, done.stderr
    output = only(workplace / "outputs" / "train")
    assert {path.name for path in (output / "checkpoints").iterdir()} == CHECKPOINTS
    assert logged(output) == pytest.approx(logged(trained.output), abs=2e-4)
    assert logged(output)[0] == pytest.approx(logged(trained.output)[0], abs=1e-5)
    checkpoint = [f"checkpoint='{output}/checkpoints/best-step-3.ckpt'", "hydra.run.dir=evaluated"]
    assert run(EVALUATE, [*checkpoint, *CORPUS, *FEW_CANDIDATES], workplace).status == 0
    alone, together = report(workplace / "evaluated"), report(output)
    assert alone["gallery"] == together["gallery"] == report(trained.output)["gallery"]
    for direction in ("text_to_speech", "speech_to_text"):
        assert together[direction] == pytest.approx(alone[direction], abs=1e-6)
    for here, there in zip(alone["perturbations"], together["perturbations"]):
        assert here["pairs"] == there["pairs"] and here["rate"] == pytest.approx(there["rate"], abs=0.05)
    assert done.stdout.count("report: ") == 1


def test_without_evaluation_there_is_a_model_and_no_report(workplace):
    done = run(TRAIN, [*CORPUS, *BUDGET, "test=false", "hydra.run.dir=run"], workplace)
    assert done.status == 0, done.stderr
    assert (workplace / "run/model/model.safetensors").exists() and not (workplace / "run/report").exists()


def test_last_ckpt_can_be_written_within_an_epoch(workplace):
    """A callback kills the run in the third step; the checkpoint of the second step exists."""
    (workplace / "crash.py").write_text(
        "import os, lightning as L\n"
        "class Crash(L.Callback):\n"
        "    def on_train_batch_start(self, trainer, *args):\n"
        "        trainer.global_step == 2 and os.kill(os.getpid(), 9)\n"
    )
    crash = ["+callbacks.crash._target_=crash.Crash", "callbacks.checkpoint.every_n_train_steps=2"]
    done = run(TRAIN, [*CORPUS, *BUDGET, *crash, "hydra.run.dir=run"], workplace, PYTHONPATH=f"{ROOT}:{workplace}")
    assert done.status == -9
    assert torch.load(workplace / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


def test_finetuning_starts_from_the_checkpoint(trained, workplace):
    start = ["model=pretrained", f"model.checkpoint={trained.output}/model", "optim=finetune"]
    done = run(TRAIN, [*CORPUS, *BUDGET, *start, "test=false", "hydra.run.dir=run"], workplace)
    assert done.status == 0, done.stderr
    assert logged(workplace / "run")[0] < logged(trained.output)[0]
