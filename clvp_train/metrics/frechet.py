"""What tts-scores measures, of codes. Shapes: N, M sequences of codes, D width.

Source: `tts_scores/clvp.py` of neonbjb's tts-scores, whose CLVP reads mels.
"""

import torch


def clvp_score(text_ND: torch.Tensor, speech_ND: torch.Tensor, logit_scale: float) -> float:
    """The mean score of texts with their codes, times exp(`logit_scale`), as `compute_clvp` returns it: higher is better.

    Args:
        text_ND: L2-normalised.
        speech_ND: L2-normalised.
        logit_scale: the model's, a logarithm.
    """
    return float((text_ND * speech_ND).sum(dim=1).mean() * torch.tensor(logit_scale).exp())


def frechet_distance(first_ND: torch.Tensor, second_MD: torch.Tensor) -> float:
    """The Fréchet distance between normal distributions fitted to two sets of embeddings (Dowson and Landau 1982), 0 for the
    same; it depends on the number of sequences, so that only sets of one size compare.

    Args:
        first_ND: projected and not normalised, as `compute_fd` takes them.
        second_MD: likewise.

    Raises:
        ValueError: a set has less than two.
    """
    if min(len(first_ND), len(second_MD)) < 2:
        raise ValueError("a distribution needs two embeddings at least")
    (mean, covariance), (other_mean, other_covariance) = (
        (set_.mean(dim=0), torch.cov(set_.T).reshape(set_.shape[1], -1))
        for set_ in (first_ND.double(), second_MD.double())
    )
    # trace of (A B)^½ as that of (A^½ B A^½)^½, whose eigenvalues are real and not negative
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp(min=0).sqrt().sum()
    distance = (mean - other_mean).square().sum() + covariance.trace() + other_covariance.trace() - 2 * shared
    return float(distance.clamp(min=0))
