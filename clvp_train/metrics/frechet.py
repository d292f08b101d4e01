"""CLVP score and Fréchet distance as tts-scores computes them, on codes. Shapes: N, M sequences of codes, D width.

Source: `tts_scores/clvp.py` of neonbjb's tts-scores, whose CLVP reads mels.
"""

import torch


def clvp_score(text_ND: torch.Tensor, speech_ND: torch.Tensor, logit_scale: float) -> float:
    """Returns the mean score of texts with their codes times exp(`logit_scale`), as `compute_clvp` does: higher is better.

    Args:
        text_ND: L2-normalised.
        speech_ND: L2-normalised.
        logit_scale: of the model, a logarithm.
    """
    return float((text_ND * speech_ND).sum(dim=1).mean() * torch.tensor(logit_scale).exp())


def frechet_distance(first_ND: torch.Tensor, second_MD: torch.Tensor) -> float:
    """Returns the Fréchet distance between normal distributions fitted to two sets of embeddings (Dowson and Landau 1982).

    It is 0 for equal sets. It depends on the number of sequences: compare only sets of the same size.

    Args:
        first_ND: projected and not normalised, as `compute_fd` takes them.
        second_MD: likewise.

    Raises:
        ValueError: a set has fewer than two embeddings.
    """
    if min(len(first_ND), len(second_MD)) < 2:
        raise ValueError("a distribution needs at least two embeddings")
    (mean, covariance), (other_mean, other_covariance) = (
        (set_.mean(dim=0), torch.cov(set_.T).reshape(set_.shape[1], -1))
        for set_ in (first_ND.double(), second_MD.double())
    )
    # the trace of (A B)^½ equals that of (A^½ B A^½)^½, whose eigenvalues are real and not negative
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp(min=0).sqrt().sum()
    distance = (mean - other_mean).square().sum() + covariance.trace() + other_covariance.trace() - 2 * shared
    return float(distance.clamp(min=0))
