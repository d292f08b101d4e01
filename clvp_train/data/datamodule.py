"""The DataModule: a folder of pairs to batches on every rank."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from clvp_train.codes import arrow_copies, read_manifest
from clvp_train.corpus import Split
from clvp_train.data.collate import collate
from clvp_train.data.pairs import PairDataset
from clvp_train.data.sampler import (
    CandidateSampler,
    EvaluationSampler,
    GlobalBatchSampler,
)
from clvp_train.errors import UserError, check_number

Batch = dict[str, torch.Tensor]


class FirstCandidates(Dataset[Batch]):
    """One pair a text, with the text's number in "text" so that gathered embeddings find their place."""

    def __init__(self, pairs: PairDataset) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs.candidates)

    def __getitem__(self, text: int) -> Batch:
        return {**self.pairs[self.pairs.candidates[text][0]], "text": torch.tensor(text)}


class CLVPDataModule(L.LightningDataModule):
    """Pairs of text tokens and speech codes as dict batches, see `collate`.

    Args:
        pairs: folder that `codes.generate` wrote, a path or an fsspec URL.
        batch_size: pairs in a batch over all ranks together: the number of negatives is this minus one.
        eval_batch_size: pairs a rank embeds at once in evaluation.
        num_workers: loader processes a rank.
        seed: of the order of texts.
        pin_memory: for faster copies to a GPU.
    """

    def __init__(
        self,
        pairs: Path | str,
        batch_size: int = 256,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        check_number("data.batch_size", batch_size, 1)
        check_number("data.eval_batch_size", eval_batch_size, 1)
        check_number("data.num_workers", num_workers, 0)
        self.folder: Path | str = pairs if "://" in str(pairs) else Path(pairs)
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.loader_settings: dict[str, Any] = {"num_workers": num_workers, "pin_memory": pin_memory}
        self.loader_settings |= {"collate_fn": collate, "persistent_workers": num_workers > 0}
        self.manifest = read_manifest(self.folder)
        self._splits: dict[Split, PairDataset] | None = None

    @property
    def splits(self) -> dict[Split, PairDataset]:
        """Mapped on first use, see `codes.arrow_copies` for what that raises."""
        if self._splits is None:
            files = arrow_copies(self.folder)
            names: tuple[Split, ...] = ("train", "val", "test")
            self._splits = {split: PairDataset(files, split) for split in names}
        return self._splits

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, the same on every rank."""
        return len(self.splits["train"].candidates) // self.batch_size

    def check(self, world_size: int, evaluated: Sequence[Split] = ("val", "test")) -> None:
        """Raises UserError if there are too few training texts for a batch, a batch cannot be shared equally, or a split that
        will be evaluated is empty."""
        num_texts = len(self.splits["train"].candidates)
        if self.batch_size % world_size:
            raise UserError(
                f"data.batch_size={self.batch_size} is the global batch and cannot be shared by {world_size} processes: "
                f"set a multiple of {world_size}"
            )
        if self.batch_size > num_texts:
            raise UserError(
                f"data.batch_size={self.batch_size} is more than the {num_texts} training texts of {self.folder}: "
                "set a smaller one, or bring more texts"
            )
        for split in evaluated:
            self.check_not_empty(split)

    def train_dataloader(self) -> DataLoader[Batch]:
        pairs, (rank, world_size) = self.splits["train"], self._rank()
        sampler = CandidateSampler(pairs.candidates, self.seed)
        batches = GlobalBatchSampler(sampler, self.batch_size, rank, world_size)
        return DataLoader(pairs, batch_sampler=batches, **self.loader_settings)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: Split) -> DataLoader[Batch]:
        self.check_not_empty(split)
        texts = FirstCandidates(self.splits[split])
        sampler = EvaluationSampler(len(texts), *self._rank())
        return DataLoader(texts, sampler=sampler, batch_size=self.eval_batch_size, **self.loader_settings)

    def check_not_empty(self, split: Split) -> None:
        """Raises UserError if a split holds no text."""
        if not self.splits[split].candidates:
            raise UserError(
                f"the {split} split of {self.folder} is empty: raise split.{split}_percent, or bring more texts"
            )

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
