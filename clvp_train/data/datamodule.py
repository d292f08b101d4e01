"""The DataModule: a folder of pairs to batches on every rank."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
from torch.utils.data import DataLoader

from clvp_train.corpus import Split
from clvp_train.data.collate import Collate
from clvp_train.data.dataset import PairDataset
from clvp_train.data.negatives import HARD_NEGATIVES, HardNegatives
from clvp_train.data.ranks import check_same_pairs
from clvp_train.data.sampler import EpochOrder, EvaluationSampler, GlobalBatchSampler
from clvp_train.data.views import FirstCandidates, TrainingPairs
from clvp_train.errors import UserError, check_number
from clvp_train.pairs import arrow_copies, read_manifest
from clvp_train.tortoise.silence_padding import SILENCE_CODE, SILENCE_TAIL

SPLITS: tuple[Split, ...] = ("train", "val", "test")


class CLVPDataModule(L.LightningDataModule):
    """Pairs of text tokens and speech codes as dict batches, see `Collate`.

    Args:
        pairs: folder that `codes.generate` wrote, a path or an fsspec URL.
        batch_size: pairs in a batch over all ranks together: the number of negatives is this minus one.
        eval_batch_size: pairs a rank embeds at once in evaluation.
        num_workers: loader processes a rank.
        seed: of the order of texts and of hard negatives.
        pin_memory: for faster copies to a GPU.
        num_hard_negatives: perturbed copies of its codes beside each training pair.
        hard_negatives: the mistakes in them, names of `perturbations.PERTURBATIONS`.
        perturbation_share: [least, most] share of the codes that goes wrong.
        max_codes: with padding "tortoise", codes that tortoise-tts serves.
    """

    def __init__(
        self,
        pairs: Path | str,
        batch_size: int = 256,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
        pin_memory: bool = False,
        num_hard_negatives: int = 0,
        hard_negatives: Sequence[str] = HARD_NEGATIVES,
        perturbation_share: Sequence[float] = (0.1, 0.5),
        max_codes: int = 500,
    ) -> None:
        super().__init__()
        check_number("data.batch_size", batch_size, 1)
        check_number("data.eval_batch_size", eval_batch_size, 1)
        check_number("data.num_workers", num_workers, 0)
        check_number("data.max_codes", max_codes, 1 + len(SILENCE_TAIL))
        self.negatives = HardNegatives(num_hard_negatives, hard_negatives, perturbation_share)
        self.collate = Collate(max_codes=max_codes)
        self.folder: Path | str = pairs if "://" in str(pairs) else Path(pairs)
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.loader_settings: dict[str, Any] = {"num_workers": num_workers, "pin_memory": pin_memory}
        self.loader_settings |= {"persistent_workers": num_workers > 0}
        self.manifest = read_manifest(self.folder)
        self._splits: dict[Split, PairDataset] | None = None
        self._begin = (0, 0)

    @property
    def splits(self) -> dict[Split, PairDataset]:
        """Mapped on first use, see `codes.arrow_copies` for what that raises."""
        if self._splits is None:
            files = arrow_copies(self.folder)
            self._splits = {split: PairDataset(files, split) for split in SPLITS}
        return self._splits

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, the same on every rank."""
        return len(self.splits["train"].candidates) // self.batch_size

    @property
    def served_codes(self) -> int | None:
        """How many codes a model sees at most; None: all."""
        return self.collate.max_codes if self.padding == "tortoise" else None

    @property
    def padding(self) -> str:
        """How loaders made from now on pad, see `Collate`. Setting it raises UserError if the pairs cannot be padded so."""
        return self.collate.padding

    @padding.setter
    def padding(self, padding: str) -> None:
        size, calm = self.manifest.speech_vocab_size, max(SILENCE_CODE, *SILENCE_TAIL)
        if padding == "tortoise" and size <= calm:
            raise UserError(
                f"padding=tortoise ends codes with {SILENCE_CODE} and {SILENCE_TAIL}, but the pairs of {self.folder} know {size} speech "
                "codes only: set model.config.padding=mask, or make pairs with a Tortoise whose codes these are"
            )
        self.collate = replace(self.collate, padding=padding)

    def go_on_at(self, epoch: int, batches: int) -> None:
        """In that epoch, training loaders made from now on leave out the first `batches` batches."""
        self._begin = (epoch, batches)

    def check(self, world_size: int, evaluated: Sequence[Split] = ("val", "test")) -> None:
        """Raises UserError if a batch holds a single pair or cannot be shared equally, there are too few training texts for
        one, or a split that will be evaluated is empty."""
        num_texts = len(self.splits["train"].candidates)
        if self.batch_size == 1:
            raise UserError("data.batch_size=1 leaves a pair nothing to be told apart from: set 2 or more")
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
        if "test" in evaluated:
            self.check_tells_apart()

    def setup(self, stage: str) -> None:
        """Raises UserError if the ranks have different pairs."""
        sizes = [f"{len(pairs)} {split} pairs of {len(pairs.candidates)} texts" for split, pairs in self.splits.items()]
        check_same_pairs(str(self.folder), f"fingerprint {self.manifest.fingerprint}, {', '.join(sizes)}")

    def train_dataloader(self) -> DataLoader[Any]:
        pairs, (rank, world_size) = self.splits["train"], self._rank()
        items = TrainingPairs(pairs, self.negatives, self.seed, self.served_codes)
        overfits = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        order = EpochOrder(pairs.candidates, self.seed, fixed=overfits)
        order.set_epoch(self._begin[0])  # loader processes fetch ahead before Lightning sets it
        batches = GlobalBatchSampler(order, self.batch_size, rank, world_size, self._begin)
        return DataLoader(items, batch_sampler=batches, collate_fn=self.collate, **self.loader_settings)

    def val_dataloader(self) -> DataLoader[Any]:
        self.check_not_empty("val")
        texts = FirstCandidates(self.splits["val"])
        sampler = EvaluationSampler(len(texts), *self._rank())
        settings = self.loader_settings | {"batch_size": self.eval_batch_size}
        return DataLoader(texts, sampler=sampler, collate_fn=self.collate, **settings)

    def check_not_empty(self, split: Split) -> None:
        """Raises UserError if a split holds no text."""
        if not self.splits[split].candidates:
            raise UserError(
                f"the {split} split of {self.folder} is empty: raise split.{split}_percent, or bring more texts"
            )

    def check_tells_apart(self) -> None:
        """Raises UserError if the test split holds less than two texts."""
        self.check_not_empty("test")
        if len(self.splits["test"].candidates) < 2:
            raise UserError(
                f"the test split of {self.folder} holds a single text, which leaves nothing to tell it from: raise "
                "split.test_percent, or bring more texts"
            )

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
