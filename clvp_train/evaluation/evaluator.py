"""All that is measured of one checkpoint. Shapes: N held-out pairs, D width."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from clvp_train import metrics
from clvp_train.evaluation.embed import Embedder
from clvp_train.evaluation.embedding_store import EmbeddingStore
from clvp_train.evaluation.evaluation_data import EvaluationData
from clvp_train.evaluation.held_out import HeldOut
from clvp_train.losses.gather import rank
from clvp_train.report.pictures import FigureData

PerText = dict[str, np.ndarray]
NUM_CONFUSIONS = 20


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        metrics: numbers and words, fit for JSON.
        per_text: by name of a quantity one value a text, whose mean it is: what comparisons are made of.
        figure_data: what figures are drawn from.
    """

    metrics: dict[str, Any]
    per_text: PerText
    figure_data: FigureData


def evaluate(data: EvaluationData, embedder: Embedder) -> Evaluation:
    """Embeds the data with a model and measures everything. All ranks must call it.

    Raises:
        UserError: the embeddings are not finite, or ranks have other data.
    """
    pools = EmbeddingStore(data, embedder)
    text_ND, speech_ND = pools.texts(pools.pairs[0]), pools.speech(pools.pairs[1])
    with Progress(transient=True, disable=rank() != 0) as progress:
        ranking = progress.add_task("Ranking")
        found = metrics.retrieval_ranks(
            text_ND, speech_ND, lambda done, of: progress.update(ranking, completed=done, total=of)
        )
    per_text = _retrieved(found)
    true_N = pools.scores(pools.pairs)
    mismatched = pools.scores(tuple(rows[which] for rows, which in zip(pools.pairs, metrics.mismatched(len(text_ND)))))
    perturbations, perturbed = _faults(data, pools, true_N, per_text)
    lengths_N = {
        "text tokens": np.array([len(ids) for ids in data.pairs.input_ids]),
        "speech codes": np.array([len(codes) for codes in data.pairs.codes]),
    }
    scale = embedder.module.model.logit_scale.item()
    numbers: dict[str, Any] = {
        **metrics.retrieval_summary(found),
        "intervals": _intervals(found, per_text),
        "breakdown": {
            **{name: metrics.by_quartile(lengths, found) for name, lengths in lengths_N.items()},
            "voice": metrics.by_label(data.pairs.voices, found),
        },
        "scores": {
            "true": _moments(true_N),
            "mismatched": _moments(mismatched) | {"auc": metrics.auc(true_N, mismatched)},
            "clvp_score": metrics.clvp_score(text_ND, speech_ND, scale),
            "table": metrics.score_table(true_N, mismatched),
        },
        "perturbations": perturbations,
        "left_out": data.left_out,
        "confusions": _confusions(data, text_ND, speech_ND, found),
        "example": _example(data.pairs),
    }
    if len(perturbed):
        numbers["scores"]["perturbed"] = _moments(perturbed) | {"auc": metrics.auc(true_N, perturbed)}
    if data.candidates is not None:
        numbers["rerank"] = _rerank(data, pools, per_text)
    if data.reference is not None:
        numbers["reference"] = {
            "codes": len(data.reference),
            "frechet_distance": metrics.frechet_distance(
                pools.projections(pools.pairs[1]), pools.projections(pools.reference)
            ),
        }
    scores = {"true": true_N, "mismatched": mismatched} | ({"perturbed": perturbed} if len(perturbed) else {})
    pictures = FigureData.from_retrieval(text_ND, speech_ND, found, scores)
    pictures.perturbations = perturbations
    pictures.voices, pictures.lengths = data.pairs.voices, lengths_N["speech codes"]
    return Evaluation(numbers, per_text, pictures)


def _example(pairs: HeldOut) -> dict[str, Any]:
    """The shortest pair, and the codes of another text of its length, for a card that shows how to use the model."""
    first, second = np.argsort([len(codes) for codes in pairs.codes], kind="stable")[:2]
    return {"text": pairs.texts[first], "candidates": [pairs.codes[row].tolist() for row in (first, second)]}


def _retrieved(found: metrics.RetrievalRanks) -> PerText:
    per_text: PerText = {}
    for name, words in metrics.DIRECTIONS.items():
        ranks_N = getattr(found, name).numpy()
        per_text |= {f"R@{k}, {words}": (ranks_N <= k).astype(float) for k in (1, 5, 10)}
        per_text |= {f"MRR, {words}": 1 / ranks_N, f"mean_rank, {words}": ranks_N}
    return per_text


def _intervals(found: metrics.RetrievalRanks, per_text: PerText) -> dict[str, dict[str, metrics.Interval]]:
    intervals: dict[str, dict[str, metrics.Interval]] = {}
    for name, words in metrics.DIRECTIONS.items():
        own = {key.split(",")[0]: values_N for key, values_N in per_text.items() if key.endswith(words)}
        intervals[name] = {key: metrics.interval(values_N) for key, values_N in own.items()}
        intervals[name]["median_rank"] = metrics.median_interval(own["mean_rank"])
    return intervals


def _moments(scores: np.ndarray) -> dict[str, float]:
    return {"mean": float(scores.mean()), "standard_deviation": float(scores.std())}


def _faults(
    data: EvaluationData, pools: EmbeddingStore, true_N: np.ndarray, per_text: PerText
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """How often true pairs outscore their perturbed copies, and all scores of these."""
    rows, perturbed = [], []
    for perturbation, places in zip(data.perturbations, pools.perturbations):
        scores = pools.scores(places)
        wins = metrics.win_rate(true_N[perturbation.rows], scores)
        rows.append(
            {
                "side": perturbation.side,
                "perturbation": perturbation.name,
                "share": perturbation.share,
                "pairs": len(wins),
                "rate": float(wins.mean()),
                "interval": metrics.interval(wins),
            }
        )
        per_text[f"catches {perturbation.name}" + (f", {perturbation.share:g}" if perturbation.share else "")] = wins
        perturbed.append(scores)
    return rows, np.concatenate(perturbed) if perturbed else np.empty(0)


def _rerank(data: EvaluationData, pools: EmbeddingStore, per_text: PerText) -> dict[str, Any]:
    sets = data.candidates
    assert sets is not None
    candidates = metrics.Candidates(
        scores_NK=sets.by_text(pools.scores(pools.candidates)),
        finished_NK=sets.by_text(sets.pairs.finished),
        log_probabilities_NK=sets.by_text(sets.pairs.log_probabilities),
        num_codes_NK=sets.by_text([len(codes) for codes in sets.pairs.codes]),
        word_errors_NK=None if data.word_errors is None else sets.by_text(data.word_errors),
        num_words_N=data.num_words,
    )
    per_text |= {f"pick: {name}": values_N for name, values_N in metrics.of_picks(candidates).items()}
    passed_over = {"texts_with_one_candidate": sets.num_single, "texts_in_several_voices": sets.num_mixed}
    return metrics.rerank(candidates) | passed_over


def _confusions(
    data: EvaluationData, text_ND: torch.Tensor, speech_ND: torch.Tensor, found: metrics.RetrievalRanks
) -> list[dict[str, Any]]:
    """The texts that are retrieved worst, and what is retrieved instead."""
    worst = found.text_to_speech.argsort(descending=True, stable=True)[:NUM_CONFUSIONS]
    worst = worst[found.text_to_speech[worst] > 1]
    scores_XN = (text_ND[worst.to(text_ND.device)] @ speech_ND.T).cpu()
    own_X = scores_XN[torch.arange(len(worst)), worst].tolist()
    scores_XN[torch.arange(len(worst)), worst] = -torch.inf
    return [
        {
            "text": data.pairs.texts[row],
            "rank": float(found.text_to_speech[row]),
            "score": own,
            "instead": data.pairs.texts[int(scores_N.argmax())],
            "its_score": float(scores_N.max()),
        }
        for row, own, scores_N in zip(worst.tolist(), own_X, scores_XN)
    ]
