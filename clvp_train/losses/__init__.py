"""Losses: functions of embeddings, independent of the model."""

from clvp_train.losses.contrastive import ContrastiveOutput, SymmetricContrastiveLoss
from clvp_train.losses.gather import gather
from clvp_train.losses.listwise import ListwiseLoss
from clvp_train.losses.sigmoid import SigmoidLoss

__all__ = ["ContrastiveOutput", "ListwiseLoss", "SigmoidLoss", "SymmetricContrastiveLoss", "gather"]
