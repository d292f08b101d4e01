"""Objectives: functions of embeddings that own no model."""

from clvp_train.losses.contrastive import ContrastiveOutput, SymmetricContrastiveLoss
from clvp_train.losses.gather import gather

__all__ = ["ContrastiveOutput", "SymmetricContrastiveLoss", "gather"]
