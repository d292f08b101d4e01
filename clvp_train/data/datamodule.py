"""The DataModule: batches of one or several folders of pairs for every rank."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch.distributed as dist
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from clvp_train.corpus import Split
from clvp_train.data.cached import windows_of
from clvp_train.data.collate import Collate, Pair
from clvp_train.data.dataset import EvaluationPairs, PairDataset, TrainingPairs
from clvp_train.data.judged import JudgedCandidates, JudgedPairs
from clvp_train.data.loader import TimedLoader, ignore_signals
from clvp_train.data.mixture import MixedPairs, Mixture
from clvp_train.data.perturbations import HARD_NEGATIVES, HardNegatives
from clvp_train.data.sampler import EpochOrder, EvaluationSampler, GlobalBatchSampler
from clvp_train.errors import Findings, UserError
from clvp_train.pairs import Manifest
from clvp_train.tortoise.silence_padding import SILENCE_CODE, SILENCE_TAIL


class CLVPDataModule(L.LightningDataModule):
    """Batches of text tokens and speech codes, see `Collate`.

    Args:
        pairs: folder that `pairs.generate` wrote, a path or an fsspec URL; or several by name, whose training texts are merged.
        batch_size: pairs in a batch over all ranks together; each has batch_size - 1 negatives.
        eval_batch_size: pairs that a rank embeds at once in evaluation.
        num_workers: loader processes a rank.
        seed: of the order of texts and of hard negatives.
        pin_memory: speeds up copies to a GPU.
        num_hard_negatives: perturbed copies of its codes for each training pair.
        hard_negatives: names of `perturbations.PERTURBATIONS`.
        perturbation_share: [minimum, maximum] share of the codes that a perturbation affects.
        num_judged_negatives: worse candidates of its text for each training pair, see `JudgedCandidates`; perturbed copies
            where there are fewer.
        judged_margin: by which the quality of a worse candidate is below that of the pair.
        judged_positive_share: share of a text's judged candidates, the best, that training uses as positives.
        max_codes: with padding "tortoise", length of the codes.
        weights: of several folders by name, 1 by default: how often training draws the pair of a text from each of those that
            have the text.
        eval_pairs: of several folders, the name of the one that is evaluated; None: the first that has a validation and a test
            split.
        val_pairs: of several folders, the name of the one whose validation selects the best checkpoint; None: that of
            `eval_pairs` if it has a validation split, else the first that has one.
        cache_gb: limit of the copies of training shards on the disk, see `pairs.CopyCache`; None: all of them.

    Attributes:
        mixture: the folders.
    """

    def __init__(
        self,
        pairs: Path | str | Mapping[str, Path | str],
        batch_size: int = 96,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
        pin_memory: bool = False,
        num_hard_negatives: int = 0,
        hard_negatives: Sequence[str] = HARD_NEGATIVES,
        perturbation_share: Sequence[float] = (0.1, 0.5),
        num_judged_negatives: int = 0,
        judged_margin: float = 0.0,
        judged_positive_share: float = 1.0,
        max_codes: int = 500,
        weights: Mapping[str, float] | None = None,
        eval_pairs: str | None = None,
        val_pairs: str | None = None,
        cache_gb: float | None = None,
    ) -> None:
        super().__init__()
        # perturbed copies also take the place of worse candidates that a text does not have
        num_copies = num_hard_negatives + num_judged_negatives
        self.negatives = HardNegatives(num_copies, hard_negatives, perturbation_share)
        self.num_judged_negatives, self.judged_margin = num_judged_negatives, judged_margin
        self.judged_positive_share = judged_positive_share
        self.collate = Collate(max_codes=max_codes)
        folders = pairs if isinstance(pairs, Mapping) else {"pairs": pairs}
        self.cache_gb, cache_bytes = cache_gb, None if cache_gb is None else cache_gb * 1e9
        self.mixture = Mixture(folders, weights or {}, eval_pairs, val_pairs, cache_bytes)
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.loader_settings: dict[str, Any] = {"num_workers": num_workers, "pin_memory": pin_memory}
        self.loader_settings |= {"persistent_workers": num_workers > 0, "worker_init_fn": ignore_signals}
        self._start = (0, 0)

    @property
    def folder(self) -> Path | str:
        """The folder that is evaluated."""
        return self.mixture.folders[self.mixture.evaluated]

    @property
    def manifest(self) -> Manifest:
        """The manifest of the folder that is evaluated. All folders have the same vocabularies."""
        return self.mixture.manifests[self.mixture.evaluated]

    @property
    def splits(self) -> dict[Split, PairDataset]:
        """The pairs of each split of the folder that is evaluated. Raises as `pairs.arrow_copies` does."""
        return self.mixture.splits[self.mixture.evaluated]

    @property
    def val_names(self) -> list[str]:
        """The name of each loader of `val_dataloader`: the folders with a validation split, the one that selects the best
        checkpoint first."""
        has_texts = [name for name, splits in self.mixture.splits.items() if splits["val"].text_index]
        return [self.mixture.validated, *(name for name in has_texts if name != self.mixture.validated)]

    @cached_property
    def judged(self) -> JudgedCandidates | None:
        """The training pairs by their quality; None if no setting asks for it."""
        if self.num_judged_negatives == 0 and self.judged_positive_share == 1:
            return None
        qualities = [self.mixture.splits[name]["train"].qualities() for name in self.mixture.trained]
        texts, quality_N = self.mixture.training_texts, np.concatenate(qualities)
        return JudgedCandidates(texts, quality_N, self.num_judged_negatives, self.judged_margin)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, the same on every rank."""
        return len(self.mixture.training_texts) // self.batch_size

    @property
    def served_codes(self) -> int | None:
        """The number of codes that the model sees; None: all."""
        return self.collate.max_codes if self.padding == "tortoise" else None

    @property
    def padding(self) -> str:
        """The padding of loaders created from now on, see `Padding`. The setter raises UserError if the pairs do not allow
        it."""
        return self.collate.padding

    @padding.setter
    def padding(self, padding: str) -> None:
        size, silence = self.manifest.speech_vocab_size, max(SILENCE_CODE, *SILENCE_TAIL)
        if padding == "tortoise" and (size <= silence or not self.manifest.tortoise):
            have = (
                f"have {size} speech codes only" if self.manifest.tortoise else "are of another codec than Tortoise's"
            )
            raise UserError(
                f"model.config.padding=tortoise: ends codes with {SILENCE_CODE} and {SILENCE_TAIL}, but the pairs in "
                f"{self.folder} {have}. Set model.config.padding=mask, or use pairs of a Tortoise that has these codes."
            )
        self.collate = replace(self.collate, padding=padding)

    def resume_at(self, epoch: int, batches: int) -> None:
        """Makes training loaders created from now on skip the first `batches` batches of that epoch."""
        self._start = (epoch, batches)

    def check(self, world_size: int, evaluated: Sequence[Split] = ("val", "test")) -> None:
        """Raises UserError if the batch size does not fit the training texts or the number of processes, if a split that
        will be evaluated is empty, if the splits of several folders differ, or if the training pairs lack a quality that a
        setting needs."""
        self.mixture.check_splits()
        found = Findings(batch_findings(self.batch_size, world_size, len(self.mixture.training_texts), self.mixture))
        for split in evaluated:
            found += self._split_findings(split)
        found.report()
        if self.cache_gb is not None and self.judged is not None:
            raise UserError(
                f"data.cache_gb={self.cache_gb:g}: judged candidates of a text may be in any shard. Set it to null, or "
                "data.num_judged_negatives=0 and data.judged_positive_share=1."
            )
        if self.judged is not None and not self.judged.is_judged_N.any():
            raise UserError(
                f"{self.mixture}: no training pair has a quality, which data.num_judged_negatives and "
                "data.judged_positive_share need. Generate the pairs with codes/judge=recordings."
            )

    def setup(self, stage: str) -> None:
        """Raises UserError if the ranks have different pairs."""
        facts = []
        for name, splits in self.mixture.splits.items():
            sizes = [f"{len(pairs)} {split} pairs of {len(pairs.text_index)} texts" for split, pairs in splits.items()]
            facts.append(f"fingerprint {self.mixture.manifests[name].fingerprint}, {', '.join(sizes)}")
        check_same_pairs(str(self.mixture), "; ".join(facts))

    def train_dataloader(self) -> DataLoader[Any]:
        train = [self.mixture.splits[name]["train"] for name in self.mixture.trained]
        rank, world_size = self._rank()
        items: Dataset[Pair] = MixedPairs(
            [TrainingPairs(pairs, self.negatives, self.seed, self.served_codes) for pairs in train]
        )
        texts = self.mixture.training_texts
        if self.judged is not None:
            items = JudgedPairs(items, ConcatDataset(train), self.judged, self.seed)
            texts = self.judged.positives(self.judged_positive_share)
        overfits = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        order = EpochOrder(texts, self.seed, fixed=overfits, windows=windows_of(train))
        order.set_epoch(self._start[0])  # loader processes prefetch before Lightning sets it
        batches = GlobalBatchSampler(order, self.batch_size, rank, world_size, self._start)
        return TimedLoader(items, batch_sampler=batches, collate_fn=self.collate, **self.loader_settings)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        self.check_split("val")
        return [self._val_loader(self.mixture.splits[name]["val"]) for name in self.val_names]

    def _val_loader(self, pairs: PairDataset) -> DataLoader[Any]:
        texts = EvaluationPairs(pairs)
        sampler = EvaluationSampler(len(texts), *self._rank())
        settings = self.loader_settings | {"batch_size": self.eval_batch_size}
        return DataLoader(texts, sampler=sampler, collate_fn=self.collate, **settings)

    def check_split(self, split: Split) -> None:
        """Raises UserError if a split has no texts, or the test split a single one."""
        Findings(self._split_findings(split)).report()

    def _split_findings(self, split: Split) -> Iterator[str]:
        name = self.mixture.validated if split == "val" else self.mixture.evaluated
        return split_findings(split, len(self.mixture.splits[name][split].text_index), self.mixture.folders[name])

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)


def batch_findings(batch_size: int, world_size: int, num_texts: int, name: object) -> Iterator[str]:
    """What is wrong with a batch size.

    Args:
        batch_size: over all processes.
        world_size: the number of processes.
        num_texts: distinct training texts.
        name: of the corpus or the pairs, for messages.
    """
    if batch_size < 2:
        yield "data.batch_size must be at least 2: contrastive training needs negatives."
    if batch_size % world_size:
        yield (
            f"data.batch_size={batch_size}: the global batch is not divisible by {world_size} processes. Set a multiple of "
            f"{world_size}."
        )
    if batch_size > num_texts:
        yield (
            f"data.batch_size={batch_size}: larger than the {num_texts} training texts in {name}. Set a smaller value, or add "
            "texts."
        )


def split_findings(split: Split, num_texts: int, name: object) -> Iterator[str]:
    """What is wrong with the number of distinct texts in a split that is evaluated."""
    if num_texts == 0:
        yield f"{name}: the {split} split is empty. Raise split.{split}_percent, or add texts to the corpus."
    elif num_texts == 1 and split == "test":
        yield (
            f"{name}: the test split has a single text, which leaves no negatives. Raise split.test_percent, or add texts to "
            "the corpus."
        )


def check_same_pairs(folder: str, facts: str) -> None:
    """Checks that all ranks have the same pairs: otherwise batches would share texts, or one rank would wait for another
    forever. Does nothing without a process group.

    Args:
        folder: of this rank's pairs; it may differ between ranks.
        facts: what must be equal, readable in a message.

    Raises:
        UserError: a rank has other pairs than rank 0. All ranks raise it.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    reported: list[tuple[str, str]] = [("", "")] * dist.get_world_size()
    dist.all_gather_object(reported, (folder, facts))
    first, *others = [f"{folder} ({facts})" for folder, facts in reported]
    for rank, other in enumerate(others, 1):
        if reported[rank][1] != reported[0][1]:
            raise UserError(f"{other}: the pairs of rank {rank} differ from {first} of rank 0. Use the same pairs.")
