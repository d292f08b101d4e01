"""`evaluate.py`: reports of one and several checkpoints, and bad settings."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import (
    ClvpTokenizer,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertProcessor,
    Wav2Vec2CTCTokenizer,
)

from clvp_train.metrics import percentile
from clvp_train.pairs import read_pairs
from tests.e2e.commands import EVALUATE, GENERATE, RERANK, ROOT, TRAIN, execute, run
from tests.e2e.conftest import BUDGET, CORPUS, FEW_CANDIDATES
from tests.e2e.test_bad_input import refused
from tests.e2e.test_train_and_evaluate import report

CANDIDATES = [*CORPUS[:2], "tortoise.sampling.max_codes=16", "split.test_percent=100", "split.val_percent=0"]


def evaluate(cwd, *overrides):
    done = run(EVALUATE, [*CORPUS, *FEW_CANDIDATES, "hydra.run.dir=evaluated", *overrides], cwd)
    assert done.status == 0, done.stderr
    return done


@pytest.fixture
def model(trained):
    return f"checkpoint='{trained.output}/model'"


def test_a_report_has_all_parts_and_the_terminal_a_summary(trained):
    folder, metrics = trained.output / "report", report(trained.output)
    files = {"SHA256SUMS", "figures", "index.html", "metrics.json", "report.md", "score_table.json"}
    assert {file.name for file in folder.iterdir()} == files
    for title in ("Retrieval among", "Perturbation detection", "Re-ranking 9 texts × 3 candidates", "Not measured"):
        assert title in (folder / "index.html").read_text() and title in (folder / "report.md").read_text(), title
    for line in ("perturbation detection: mean rate", "re-ranking, finished: random", "not measured: word error rate"):
        assert line in trained.finished.stdout
    assert "(speech)" not in trained.finished.stdout, "the long table is only in the report"
    names = {row["perturbation"] for row in metrics["perturbations"]}
    assert names >= {"cut_off", "babble", "other_voice", "drop_words", "negate"}
    assert metrics["rerank"]["finished"]["random"]["value"] <= 1 and metrics["rerank"]["candidates"] == 3
    assert set(metrics["left_out"]) == {"word error rate", "mel distance", "Fréchet distance"}
    assert sum(row["texts"] for row in metrics["breakdown"]["voice"]) == metrics["gallery"]
    table = json.loads((folder / "score_table.json").read_text())
    assert percentile(table, metrics["scores"]["true"]["mean"]) == pytest.approx(50, abs=25)


def test_a_model_is_evaluated_on_what_its_run_was_trained_for(trained, model, workplace):
    short = [model, "rerank.num_texts=0", "perturbations.num_pairs=0", "hydra.run.dir=evaluated"]
    done = run(EVALUATE, short, workplace)
    assert done.status == 0, done.stderr
    assert (
        "training_config.yaml: " in done.stdout + done.stderr and "TextLines sentences.txt" in done.stdout + done.stderr
    )
    metrics, expected = report(workplace / "evaluated"), report(trained.output)
    assert metrics["data"]["fingerprint"] == expected["data"]["fingerprint"]
    assert metrics["text_to_speech"] == expected["text_to_speech"]


def test_checkpoints_are_compared_on_the_same_texts(trained, workplace):
    best, last = (f"{trained.output}/checkpoints/{name}.ckpt" for name in ("best-step-3", "last"))
    done = evaluate(workplace, f"checkpoint=['{best}','{last}']")
    assert "Comparison" in done.stdout and done.stdout.count("report: ") == 3
    results = report(workplace / "evaluated")
    assert results["checkpoints"] == {"best-step-3.ckpt": best, "last.ckpt": last}
    reports = [
        json.loads((workplace / f"evaluated/report/{name}/metrics.json").read_text()) for name in results["checkpoints"]
    ]
    row = next(row for row in results["comparison"] if row["quantity"] == "MRR, text → speech")
    assert row["values"] == pytest.approx([metrics["text_to_speech"]["MRR"] for metrics in reports], abs=1e-12)
    assert row["differences"][0]["value"] == pytest.approx(row["values"][1] - row["values"][0], abs=1e-12)
    low, high = row["differences"][0]["interval"]
    assert low <= row["differences"][0]["value"] <= high
    assert 'href="last.ckpt/index.html"' in (workplace / "evaluated/report/index.html").read_text()


def test_given_candidates_and_reference(model, workplace):
    made = [*CANDIDATES, "num_candidates=2", "output_dir=candidates"]
    assert run(GENERATE, [*made, "codes.seed=1"], workplace).status == 0
    rerank = ["rerank.pairs=candidates", "rerank.num_texts=20"]
    evaluate(workplace, model, *rerank, "reference=candidates", "perturbations.num_pairs=0")
    results = report(workplace / "evaluated")
    assert (results["rerank"]["texts"], results["rerank"]["candidates"]) == (20, 2)
    assert results["reference"]["codes"] > 100 and results["reference"]["frechet_distance"] > 0
    assert results["perturbations"] == [] and results["left_out"]["perturbations"] == "perturbations.num_pairs=0"


def save_tiny_asr_model(folder):
    letters = {letter: number for number, letter in enumerate(["[PAD]", "[UNK]", "|", *"abcdefghijklmnopqrstuvwxyz"])}
    (folder / "letters.json").write_text(json.dumps(letters))
    tokenizer = Wav2Vec2CTCTokenizer(
        str(folder / "letters.json"), unk_token="[UNK]", pad_token="[PAD]", word_delimiter_token="|"
    )
    torch.manual_seed(0)
    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    config = Wav2Vec2BertConfig(vocab_size=len(tokenizer), conv_depthwise_kernel_size=3, pad_token_id=0, **settings)
    Wav2Vec2BertForCTC(config).save_pretrained(folder / "asr")
    Wav2Vec2BertProcessor(SeamlessM4TFeatureExtractor(), tokenizer).save_pretrained(folder / "asr")


def test_word_error_rates_of_an_asr_model_of_transformers(model, workplace):
    save_tiny_asr_model(workplace)
    done = evaluate(workplace, model, "rerank.asr=asr", "perturbations.num_pairs=5")
    assert "transcripts: 27 of 27 candidates" in done.stdout
    results = report(workplace / "evaluated")
    assert "word error rate" not in results["left_out"]
    rates = results["rerank"]["word_error_rate"]
    assert rates["best"]["value"] <= rates["pick"]["value"] and rates["random"]["value"] > 0.9, "the model is untrained"
    assert rates["texts"] == results["rerank"]["character_error_rate"]["texts"] == 9
    assert "Word error rate by number of candidates" in (workplace / "evaluated/report/index.html").read_text()
    again = evaluate(workplace, model, "rerank.asr=asr", "perturbations.num_pairs=5")
    assert "transcripts:" not in again.stdout and report(workplace / "evaluated") == results


def test_the_distance_to_recordings_and_the_weight_that_it_chooses(trained, model, workplace):
    (candidates,) = workplace.glob("outputs/codes/sentences-txt-test-ar-*")
    rows = [row for row in read_pairs(candidates).to_pylist() if row["candidate"] == 1]
    recorded = {name: [row[name] for row in rows[:6]] for name in ("text", "voice", "speech_ids")}
    pq.write_table(pa.table(recorded), workplace / "recordings.parquet")
    done = evaluate(workplace, model, "rerank.recordings=recordings.parquet", "perturbations.num_pairs=5")
    results = report(workplace / "evaluated")
    distance, combination = (results["rerank"][name] for name in ("mel_distance", "combination"))
    assert distance["texts"] == 6 and distance["best"]["value"] == pytest.approx(0, abs=1e-3)
    assert "random candidate; the difference of" in done.stdout
    assert (
        "Mel distance: 6 texts, whose candidates have a recording."
        in (workplace / "evaluated/report/report.md").read_text()
    )
    shutil.copytree(trained.output / "model", workplace / "model")
    shutil.copy(workplace / "evaluated/report/score_table.json", workplace / "model")
    settings = [f"candidates={candidates}", "output_dir=reranked", "reranker.log_probability_weight=stored"]
    refused(RERANK, [model, *settings], workplace, "log_probability_weight=stored", "rerank.recordings")
    assert run(RERANK, ["checkpoint=model", *settings], workplace).status == 0
    table = pq.read_table(workplace / "reranked").to_pydict()
    per_code = np.array(table["log_probability"]) / (
        [len(ids) for ids in table["speech_ids"]] + np.array(table["finished"])
    )
    combined = np.array(table.get("combined_score", table["score"]))
    assert combined == pytest.approx(np.array(table["score"]) + combination["weight"] * per_code, abs=1e-6)
    assert all(combined[row : row + 3].argmax() == table["rank"][row : row + 3].index(1) for row in range(0, 27, 3))


def test_two_processes_give_the_same_metrics_as_one(trained, model, workplace):
    pair = ["trainer=ddp_cpu", "trainer.devices=2", "hydra.run.dir=evaluated"]
    done = execute([str(ROOT / EVALUATE), model, *CORPUS, *FEW_CANDIDATES, *pair], workplace)
    assert done.status == 0, done.stderr
    alone, together = report(trained.output), report(workplace / "evaluated")
    for name in ("text_to_speech", "speech_to_text", "intervals", "breakdown"):
        rounded = [
            json.loads(json.dumps(metrics[name]), parse_float=lambda x: round(float(x), 5))
            for metrics in (alone, together)
        ]
        assert rounded[0] == rounded[1]
    assert done.stdout.count("report: ") == 1


def test_figures_and_tables_go_to_tensorboard(workplace):
    done = run(TRAIN, [*CORPUS, *BUDGET, "logger=tensorboard", "hydra.run.dir=run"], workplace)
    assert done.status == 0, done.stderr
    events = EventAccumulator(str(workplace / "run/logs"))
    events.Reload()
    tags = events.Tags()
    assert {"val/recall_curve", "val/similarity", "test/recall_curve", "test/detection_rates"} <= set(tags["images"])
    assert "test/R@1" in tags["scalars"]
    assert any("Perturbation detection" in tag for tag in tags["tensors"])


def test_a_checkpoint_with_another_tokenizer_is_refused(trained, workplace):
    checkpoint = workplace / "other"
    shutil.copytree(trained.output / "model", checkpoint)
    tokenizer = ClvpTokenizer.from_pretrained(checkpoint)
    vocabulary = json.loads((checkpoint / "vocab.json").read_text())
    vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]
    (checkpoint / "vocab.json").write_text(json.dumps(vocabulary))
    assert tokenizer("a")["input_ids"] != ClvpTokenizer.from_pretrained(checkpoint)("a")["input_ids"]
    (checkpoint / "SHA256SUMS").unlink()
    refused(EVALUATE, [f"checkpoint={checkpoint}", *CORPUS], workplace, "its tokenizer differs")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["rerank.pairs=single"], ["rerank.pairs=single", "more than one candidate", "num_candidates=16"]),
        (["rerank.pairs=nowhere"], ["nowhere", "manifest.json"]),
        (["reference=nowhere"], ["nowhere", "manifest.json"]),
        (["rerank.asr=nowhere"], ["rerank.asr=nowhere", "transformers"]),
        (["rerank.recordings=nowhere"], ["rerank.recordings=nowhere: no such file or folder"]),
        (["checkpoint=[]"], ["checkpoint=[]", "Set one"]),
    ],
)
def test_bad_settings_are_refused(model, workplace, overrides, words):
    if "single" in overrides[0]:
        made = [*CANDIDATES, "num_candidates=1", "output_dir=single"]
        assert run(GENERATE, made, workplace).status == 0
    refused(EVALUATE, [model, *CORPUS, *FEW_CANDIDATES, *overrides], workplace, *words)


def test_a_single_text_is_refused(model, workplace):
    lines = (workplace / "sentences.txt").read_text().splitlines()
    (workplace / "one.txt").write_text(lines[0] + "\n")
    corpus = ["corpus=text", "corpus.path=one.txt", "split.test_percent=100", "split.val_percent=0"]
    refused(EVALUATE, [model, *corpus, *FEW_CANDIDATES], workplace, "single text")


def test_texts_with_a_single_candidate_are_counted(model, workplace):
    from clvp_train.pairs import read_manifest, read_pairs
    from tests.unit.pairs_folder import write_folder

    assert run(GENERATE, [*CANDIDATES, "num_candidates=3", "output_dir=complete"], workplace).status == 0
    rows = [
        row for row in read_pairs(workplace / "complete").to_pylist() if row["candidate"] == 0 or int(row["id"]) % 2
    ]
    manifest = read_manifest(workplace / "complete")
    write_folder(
        workplace / "broken",
        [rows],
        text_vocab_size=manifest.text_vocab_size,
        speech_vocab_size=manifest.speech_vocab_size,
    )
    evaluate(workplace, model, "rerank.pairs=broken", "rerank.num_texts=10")
    results = report(workplace / "evaluated")["rerank"]
    assert results["texts"] == 10 and 8 <= results["texts_with_one_candidate"] <= 10
    assert "with a single candidate are left out" in (workplace / "evaluated/report/index.html").read_text()
