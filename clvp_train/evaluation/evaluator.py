"""Evaluation of one checkpoint, and comparison of several. Shapes: N held-out pairs, D width."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from clvp_train import metrics
from clvp_train.evaluation.embedding import Embedder, EmbeddingStore
from clvp_train.evaluation.evaluation_data import EvaluationData
from clvp_train.evaluation.held_out import HeldOut
from clvp_train.evaluation.perturbation_suite import PerturbedPairs
from clvp_train.io.process_rank import rank_and_world_size
from clvp_train.report import FigureData

PerText = dict[str, np.ndarray]
NUM_CONFUSIONS = 20


@dataclass(frozen=True)
class Evaluation:
    """Results of one checkpoint.

    Attributes:
        metrics: numbers and strings that can be written as JSON.
        per_text: by name of a quantity one value per text, whose mean it is; the basis of comparisons.
        figure_data: what the figures show.
        scores_NK: of the candidates of each text; None if there are none.
    """

    metrics: dict[str, Any]
    per_text: PerText
    figure_data: FigureData
    scores_NK: np.ndarray | None = None


def evaluate_model(data: EvaluationData, embedder: Embedder) -> Evaluation:
    """Embeds the data with a model and measures everything. All processes must call it.

    Raises:
        UserError: the embeddings are not finite, or the processes have different data.
    """
    store = EmbeddingStore(data, embedder)
    text_ND, speech_ND = store.texts(store.pairs[0]), store.speech(store.pairs[1])
    ranks = _retrieval_ranks(text_ND, speech_ND)
    perturbed = [store.scores(pairs) for pairs in store.perturbations]
    scores = _scores(store, perturbed)
    clvp_score = metrics.clvp_score(text_ND, speech_ND, embedder.module.model.logit_scale.item())
    retrieval = {words: _retrieval_per_text(getattr(ranks, key).numpy()) for key, words in metrics.DIRECTIONS.items()}
    per_text = {f"{name}, {words}": values_N for words in retrieval for name, values_N in retrieval[words].items()}
    results: dict[str, Any] = {
        **metrics.retrieval_summary(ranks),
        "intervals": {key: _intervals(retrieval[words]) for key, words in metrics.DIRECTIONS.items()},
        "breakdown": _breakdown(data.pairs, ranks),
        "scores": _score_metrics(scores) | {"clvp_score": clvp_score},
        "perturbations": _detection(data.perturbations, perturbed, scores["true"], per_text),
        "left_out": data.left_out,
        "confusions": _confusions(data.pairs, text_ND, speech_ND, ranks),
        "example": _example(data.pairs, data.matches_voices),
        "sets": {name: _other_set(store, name, per_text) for name in data.others},
    }
    if data.matches_voices:
        _add_wrong_voice_detection(results, ranks)
    scores_NK = None if data.candidates is None else data.candidates.by_text(store.scores(store.candidates))
    if scores_NK is not None:
        results["rerank"] = _reranking(data, scores_NK, per_text)
    if data.reference is not None:
        results["reference"] = _reference(data.reference, store)
    figure_data = FigureData.from_retrieval(
        text_ND,
        speech_ND,
        ranks,
        scores,
        voices=data.pairs.voices,
        lengths=[len(codes) for codes in data.pairs.codes],
        perturbations=results["perturbations"],
        rerank=results.get("rerank", {}),
    )
    return Evaluation(results, per_text, figure_data, scores_NK)


def compare(per_text: Sequence[PerText]) -> list[dict[str, Any]]:
    """Compares checkpoints that were evaluated on the same data, paired over texts, by every quantity that all of them have.

    Returns:
        [{"quantity", "values": one per checkpoint, "differences": {"value", "interval"} of each but the first to the first},
        …]. If an interval does not contain 0, the texts suffice to distinguish the two.
    """
    first, *others = per_text
    return [
        {
            "quantity": name,
            "values": [float(values[name].mean()) for values in per_text],
            "differences": [
                {
                    "value": float((other[name] - values_N).mean()),
                    "interval": metrics.interval(other[name] - values_N),
                }
                for other in others
            ],
        }
        for name, values_N in first.items()
        if all(name in other for other in others)
    ]


def _retrieval_ranks(text_ND: torch.Tensor, speech_ND: torch.Tensor) -> metrics.RetrievalRanks:
    with Progress(transient=True, disable=rank_and_world_size()[0] != 0) as progress:
        task = progress.add_task("Ranking")
        return metrics.retrieval_ranks(
            text_ND, speech_ND, lambda done, total: progress.update(task, completed=done, total=total)
        )


def _other_set(store: EmbeddingStore, name: str, per_text: PerText) -> dict[str, Any]:
    """Retrieval among the held-out pairs of another folder."""
    texts, codes = store.others[name]
    ranks, found = _retrieval_ranks(store.texts(texts), store.speech(codes)), {}
    for key, words in metrics.DIRECTIONS.items():
        of_set = _retrieval_per_text(getattr(ranks, key).numpy())
        found[key] = {"R@1": float(of_set["R@1"].mean()), "interval": metrics.interval(of_set["R@1"])}
        per_text[f"R@1 of {name}, {words}"] = of_set["R@1"]
    return {"gallery": len(texts)} | found


def _scores(store: EmbeddingStore, perturbed: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Scores of "true" (matched), "mismatched" and, if there are any, "perturbed" pairs."""
    texts, codes = store.pairs
    others = metrics.mismatched(len(texts))
    scores = {"true": store.scores(store.pairs), "mismatched": store.scores((texts[others[0]], codes[others[1]]))}
    return scores | ({"perturbed": np.concatenate(perturbed)} if perturbed else {})


def _retrieval_per_text(ranks_N: np.ndarray) -> PerText:
    recalls = {f"R@{k}": (ranks_N <= k).astype(float) for k in (1, 5, 10)}
    return recalls | {"MRR": 1 / ranks_N, "mean_rank": ranks_N}


def _intervals(per_text: PerText) -> dict[str, metrics.Interval]:
    intervals = {name: metrics.interval(values_N) for name, values_N in per_text.items()}
    return intervals | {"median_rank": metrics.median_interval(per_text["mean_rank"])}


def _breakdown(pairs: HeldOut, ranks: metrics.RetrievalRanks) -> dict[str, list[dict[str, Any]]]:
    """Retrieval by length and by voice."""
    lengths = {
        "text tokens": np.array([len(ids) for ids in pairs.input_ids]),
        "speech codes": np.array([len(codes) for codes in pairs.codes]),
    }
    rows = {name: metrics.by_quartile(lengths_N, ranks) for name, lengths_N in lengths.items()}
    return rows | {"voice": metrics.by_label(pairs.voices, ranks)}


def _score_metrics(scores: dict[str, np.ndarray]) -> dict[str, Any]:
    """Mean and spread of each kind of scores, the AUC of matched pairs against it, and the percentiles."""
    results: dict[str, Any] = {
        kind: {"mean": float(values.mean()), "standard_deviation": float(values.std())}
        | ({} if kind == "true" else {"auc": metrics.auc(scores["true"], values)})
        for kind, values in scores.items()
    }
    return results | {"table": metrics.score_table(scores["true"], scores["mismatched"])}


def _detection(
    perturbations: Sequence[PerturbedPairs], perturbed: Sequence[np.ndarray], true_N: np.ndarray, per_text: PerText
) -> list[dict[str, Any]]:
    """How often a matched pair scores higher than its perturbed copy, for each perturbation."""
    rows = []
    for perturbation, scores in zip(perturbations, perturbed):
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
        share = f", {perturbation.share:g}" if perturbation.share else ""
        per_text[f"detection rate of {perturbation.name}{share}"] = wins
    return rows


def _reranking(data: EvaluationData, scores_NK: np.ndarray, per_text: PerText) -> dict[str, Any]:
    sets = data.candidates
    assert sets is not None
    candidates = metrics.CandidateScores(
        scores_NK=scores_NK,
        finished_NK=sets.by_text(sets.pairs.finished),
        log_probabilities_NK=sets.by_text(sets.pairs.log_probabilities),
        num_codes_NK=sets.by_text([len(codes) for codes in sets.pairs.codes]),
        judges=dict(data.judges),
    )
    per_text |= {f"pick: {name}": values_N for name, values_N in metrics.picked_values(candidates).items()}
    counts = {"texts_with_one_candidate": sets.num_single, "texts_in_several_voices": sets.num_mixed}
    return metrics.reranking_metrics(candidates) | counts


def _reference(reference: HeldOut, store: EmbeddingStore) -> dict[str, Any]:
    distance = metrics.frechet_distance(store.projections(store.pairs[1]), store.projections(store.reference))
    return {"codes": len(reference), "frechet_distance": distance}


def _confusions(
    pairs: HeldOut, text_ND: torch.Tensor, speech_ND: torch.Tensor, ranks: metrics.RetrievalRanks
) -> list[dict[str, Any]]:
    """The texts with the worst ranks, and the text whose codes are retrieved instead."""
    worst_X = ranks.text_to_speech.argsort(descending=True, stable=True)[:NUM_CONFUSIONS]
    worst_X = worst_X[ranks.text_to_speech[worst_X] > 1]
    scores_XN = (text_ND[worst_X.to(text_ND.device)] @ speech_ND.T).cpu()
    own_X = scores_XN[torch.arange(len(worst_X)), worst_X].tolist()
    scores_XN[torch.arange(len(worst_X)), worst_X] = -torch.inf
    return [
        {
            "text": pairs.texts[row],
            "rank": float(ranks.text_to_speech[row]),
            "score": own,
            "instead": pairs.texts[int(scores_N.argmax())],
            "its_score": float(scores_N.max()),
        }
        for row, own, scores_N in zip(worst_X.tolist(), own_X, scores_XN)
    ]


def _add_wrong_voice_detection(results: dict[str, Any], ranks: metrics.RetrievalRanks) -> None:
    """Adds, for each direction, how often the own voice scores higher than another one."""
    for key in metrics.DIRECTIONS:
        ranks_N = getattr(ranks, key).numpy()
        wins_N = 1 - (ranks_N - 1) / (len(ranks_N) - 1)
        results[key][metrics.WRONG_VOICE] = float(wins_N.mean())
        results["intervals"][key][metrics.WRONG_VOICE] = metrics.interval(wins_N)


def _example(pairs: HeldOut, matches_voices: bool) -> dict[str, Any]:
    """The shortest pair and the codes of another text of similar length, for the usage example of a model card. A voice is
    represented by the codes of a reference."""
    first, second = np.argsort([len(codes) for codes in pairs.codes], kind="stable")[:2]
    text = " ".join(map(str, pairs.input_ids[first])) if matches_voices else pairs.texts[first]
    return {"text": text, "candidates": [pairs.codes[row].tolist() for row in (first, second)]}
