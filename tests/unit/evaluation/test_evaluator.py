import dataclasses
import json

import numpy as np
import pytest
import torch

from clvp_train import metrics
from clvp_train.errors import UserError
from clvp_train.evaluation import EvaluationData, PerturbationSuite, compare, evaluate_model
from clvp_train.evaluation.perturbation_suite import change_voices, perturb_codes, perturb_texts
from clvp_train.report import draw, tables, worth


class Perfect:
    """Embeds a text and its codes as the same vector: token counts of the first and the second part."""

    def __init__(self, module):
        self.module = module

    @staticmethod
    def _counts(sequence):
        parts = np.array_split(sequence, 2)
        return torch.from_numpy(np.concatenate([np.bincount(tower, minlength=30)[:30] for tower in parts])).float()

    def texts(self, sequences):
        return torch.stack([self._counts(sequence) for sequence in sequences])

    def speech(self, sequences, finished):
        return torch.stack([self._counts(np.asarray(sequence)[::2] // 2) for sequence in sequences])


@pytest.fixture
def data(held_out, candidate_sets):
    pairs, suite = held_out(23), PerturbationSuite(shares=[0.5])
    perturbations = [
        *perturb_codes(pairs, suite),
        *perturb_texts(pairs, suite, lambda text: [int(word[1:]) % 30 for word in text.split()]),
    ]
    return EvaluationData(
        pairs,
        [*perturbations, *change_voices(pairs, candidate_sets, suite)],
        candidates=candidate_sets,
        reference=held_out(9, seed=5),
        left_out={"a part": "why"},
    )


def test_a_perfect_model_has_perfect_metrics(data, embedder):
    results = evaluate_model(data, Perfect(embedder.module))
    for direction in ("text_to_speech", "speech_to_text"):
        assert results.metrics[direction]["R@1"] == 1
        assert results.metrics["intervals"][direction]["R@1"] == [1, 1]
    assert results.metrics["scores"]["mismatched"]["auc"] == 1
    rates = {row["perturbation"]: row["rate"] for row in results.metrics["perturbations"]}
    for perturbation in ("cut_off", "foreign_stretch", "babble", "drop_words", "replace_words", "repeat_words"):
        assert rates[perturbation] > 0.95, perturbation
    assert rates["drop"] > 0.9
    first = data.candidates.starts
    assert results.metrics["rerank"]["texts"] == 12
    picks = results.per_text["pick: log_probability_per_code"]
    expected = data.candidates.pairs.log_probabilities[first] / [
        len(data.candidates.pairs.codes[row]) + 1 for row in first
    ]
    assert picks == pytest.approx(expected), "the first candidate of every text must be picked"


def test_an_untrained_model_is_at_chance(held_out, embedder):
    pairs = held_out(400)
    results = evaluate_model(EvaluationData(pairs, perturb_codes(pairs, PerturbationSuite(shares=[0.5]))), embedder)
    assert results.metrics["text_to_speech"]["R@10"] < 0.1
    assert results.metrics["scores"]["mismatched"]["auc"] == pytest.approx(0.5, abs=0.06)
    assert "rerank" not in results.metrics and "reference" not in results.metrics


def test_metrics_equal_a_direct_computation(data, embedder):
    results = evaluate_model(data, embedder)
    pairs = data.pairs
    text = torch.nn.functional.normalize(embedder.texts(pairs.input_ids), dim=1)
    projected = embedder.speech(pairs.codes, pairs.finished)
    speech = torch.nn.functional.normalize(projected, dim=1)
    ranks = metrics.retrieval_ranks(text, speech)
    assert results.metrics["text_to_speech"] == metrics.rank_summary(ranks.text_to_speech)
    own = (text * speech).sum(1).double().numpy()
    assert results.metrics["scores"]["true"]["mean"] == pytest.approx(own.mean(), abs=1e-6)
    scale = embedder.module.model.logit_scale.exp().item()
    assert results.metrics["scores"]["clvp_score"] == pytest.approx(own.mean() * scale, rel=1e-5)
    reference = embedder.speech(data.reference.codes, data.reference.finished)
    distance = metrics.frechet_distance(projected, reference)
    assert results.metrics["reference"] == {"codes": 9, "frechet_distance": pytest.approx(distance, rel=1e-4)}
    for perturbation, row in zip(data.perturbations, results.metrics["perturbations"]):
        if perturbation.side == "text":
            wrong = torch.nn.functional.normalize(embedder.texts(perturbation.perturbed), dim=1)
            scores, right = (wrong * speech[perturbation.rows]).sum(1), own[perturbation.rows]
        else:
            finished = [pairs.finished[r] for r in perturbation.rows]
            wrong = torch.nn.functional.normalize(embedder.speech(perturbation.perturbed, finished), dim=1)
            scores, right = (text[perturbation.rows] * wrong).sum(1), own[perturbation.rows]
        assert row["rate"] == pytest.approx((right > scores.numpy()).mean(), abs=0.05), perturbation.name
        assert row["pairs"] == len(perturbation.rows) and row["interval"][0] <= row["rate"] <= row["interval"][1]
    assert [row["texts"] for row in results.metrics["breakdown"]["voice"]] == [8, 8, 7]
    worst = results.metrics["confusions"][0]
    assert worst["rank"] == ranks.text_to_speech.max() and worst["text"] in pairs.texts
    assert worst["its_score"] > worst["score"]


def test_metrics_can_be_written_as_json_tables_and_figures(data, embedder):
    results = evaluate_model(data, embedder)
    read = json.loads(json.dumps(results.metrics, allow_nan=False))
    titles = [table.title for table in tables(read)]
    assert titles[0].startswith("Retrieval among 23") and "Re-ranking 12 texts × 2.417 candidates" in titles
    assert {"Perturbation detection", "Fréchet distance", "Score percentiles", "Worst confusions"} <= set(titles)
    assert len(draw(results.figure_data)) == 8


def test_a_comparison_is_paired_and_signed(data, embedder):
    weak, strong = evaluate_model(data, embedder), evaluate_model(data, Perfect(embedder.module))
    rows = {row["quantity"]: row for row in compare([weak.per_text, strong.per_text])}
    first = rows["R@1, text → speech"]
    assert first["values"] == [weak.metrics["text_to_speech"]["R@1"], 1.0]
    assert first["differences"][0]["value"] == pytest.approx(1 - first["values"][0])
    assert first["differences"][0]["interval"][0] > 0
    same = compare([weak.per_text, weak.per_text])
    assert all(row["differences"][0] == {"value": 0, "interval": [0, 0]} for row in same)


def test_a_diverged_model_is_reported(held_out, embedder):
    with torch.no_grad():
        embedder.module.model.text_projection.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="diverged"):
        evaluate_model(EvaluationData(held_out(5)), embedder)


def test_word_error_rates(data, embedder):
    errors = np.array([0.0] * len(data.candidates.pairs))
    errors[np.array(data.candidates.starts) + 1] = 2
    judge = metrics.Judge(data.candidates.by_text(errors), np.full(12, 4))
    results = evaluate_model(dataclasses.replace(data, judges={"word_error_rate": judge}), Perfect(embedder.module))
    rates = results.metrics["rerank"]["word_error_rate"]
    assert rates["pick"]["value"] == 0 and rates["random"]["value"] == pytest.approx(2 / 4 * (5 / 3 + 7 / 2) / 12)
    assert "rerank_gain" in draw(results.figure_data)
    shown = {table.title: table for table in tables(json.loads(json.dumps(results.metrics, allow_nan=False)))}
    assert [row[0] for row in shown["Word error rate by number of candidates"].rows] == ["1", "2", "3"]
    assert "closes 100% of the gap" in worth(results.metrics) and "2 candidates give at least 80%" in worth(
        results.metrics
    )
