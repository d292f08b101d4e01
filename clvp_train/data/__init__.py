"""Batches of pairs."""

from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.data.dataset import PairDataset

__all__ = ["CLVPDataModule", "PairDataset"]
