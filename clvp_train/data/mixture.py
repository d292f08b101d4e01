"""One or several folders of pairs that are trained on together. Shapes: N pairs, U distinct texts, B batch, F folders."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from clvp_train.corpus import Split
from clvp_train.data.cached import CachedPairs
from clvp_train.data.collate import Pair
from clvp_train.data.dataset import PairDataset, TrainingPairs
from clvp_train.data.sampler import Item
from clvp_train.data.text_index import TextIndex
from clvp_train.errors import UserError
from clvp_train.pairs import CopyCache, arrow_copies, read_manifest

SPLITS: tuple[Split, ...] = ("train", "val", "test")
GOLDEN_RATIO = (5**0.5 - 1) / 2


class MixedTextIndex(TextIndex):
    """The pairs of each distinct text in several folders. Takes 4 more bytes of memory per text and folder.

    Args:
        merged: the pairs of each text, numbered consecutively over all folders.
        starts_F: the number of the first pair of each folder.
        weights_F: of the folders.
    """

    def __init__(self, merged: TextIndex, starts_F: Sequence[int], weights_F: Sequence[float] | np.ndarray) -> None:
        super().__init__(merged.indices_N, merged.offsets)
        self.starts_F = starts_F
        self.weights_F, shape = np.array(weights_F, dtype=np.float64), (len(self), len(weights_F))
        folder_N = np.searchsorted(starts_F, self.indices_N, side="right") - 1
        text_N = np.repeat(np.arange(len(self)), self.sizes())
        counts = np.bincount(np.ravel_multi_index((text_N, folder_N), shape), minlength=shape[0] * shape[1])
        self.counts_UF = counts.reshape(shape).astype(np.int32)

    @classmethod
    def from_folders(cls, keys: Sequence[np.ndarray], weights: Sequence[float]) -> "MixedTextIndex":
        """Merges folders, given the keys of the pairs of each, see `text_hashes`, and their weights."""
        starts_F = np.cumsum([0, *map(len, keys[:-1])]).tolist()
        return cls(TextIndex.from_keys(np.concatenate(keys)), starts_F, weights)

    def subset(self, kept_N: np.ndarray) -> "MixedTextIndex":
        return MixedTextIndex(super().subset(kept_N), self.starts_F, self.weights_F)

    def pick(self, texts_B: np.ndarray, turns_B: np.ndarray) -> np.ndarray:
        """(B,) indices: for each text one of the folders that have it, by weight, and there its pair number `turn`, modulo the
        number of its pairs.

        Multiples of the golden ratio modulo 1 fill an interval evenly from any start. Over successive turns of a text, and over
        texts in one epoch, the shares of the folders are therefore closer to the weights than those of random draws.
        """
        counts_BF, row_B = self.counts_UF[texts_B], np.arange(len(texts_B))
        folder_B = self._choose_folders(counts_BF > 0, turns_B)
        # the pairs of a text are sorted by folder
        count_B, end_B = counts_BF[row_B, folder_B], np.cumsum(counts_BF, axis=1)[row_B, folder_B]
        first_B = self.offsets[texts_B] + end_B - count_B
        return self.indices_N[first_B + turns_B % count_B]

    def _choose_folders(self, has_text_BF: np.ndarray, turns_B: np.ndarray) -> np.ndarray:
        """(B,) folders. Those that have a text divide a line among themselves by weight; a point on it chooses one."""
        ends_BF = np.cumsum(self.weights_F * has_text_BF, axis=1)
        point_B = turns_B * GOLDEN_RATIO % 1 * ends_BF[:, -1]
        return (point_B[:, None] >= ends_BF).sum(axis=1)


@dataclass(eq=False)
class MixedPairs(Dataset[Pair]):
    """The training pairs of several folders, one after the other, as `MixedTextIndex` numbers them. Hard negatives are made of
    pairs of the same folder, so that the source of the codes does not give them away."""

    folders: Sequence[TrainingPairs]

    def __post_init__(self) -> None:
        self.starts = np.cumsum([0, *(len(folder.pairs) for folder in self.folders)]).tolist()

    def __getitem__(self, item: Item) -> Pair:
        index, epoch = item
        folder = bisect_right(self.starts, index) - 1
        return self.folders[folder][index - self.starts[folder], epoch]


class Mixture:
    """Folders of pairs with their weights in training. One of them is evaluated.

    Args:
        folders: by name.
        weights: by name; 1 by default. A folder with weight 0 is not trained on.
        evaluated: name of the folder that is evaluated; None: the first that has a validation and a test split.
        validated: name of the folder whose validation split selects the best checkpoint; None: `evaluated` if it has such a
            split, else the first that has one.
        cache_bytes: of the copies of training shards that are on the disk at a time; None: all.

    Raises:
        UserError: a folder has no manifest, the vocabularies differ, all weights are 0, or no folder has the given name.
    """

    def __init__(
        self,
        folders: Mapping[str, Path | str],
        weights: Mapping[str, float],
        evaluated: str | None = None,
        validated: str | None = None,
        cache_bytes: float | None = None,
    ) -> None:
        self.folders = {name: folder if "://" in str(folder) else Path(folder) for name, folder in folders.items()}
        self.weights = {name: float(weights.get(name, 1)) for name in self.folders}
        self.manifests = {name: read_manifest(folder) for name, folder in self.folders.items()}
        for setting, name in (("eval_pairs", evaluated), ("val_pairs", validated)):
            if name is not None and name not in self.folders:
                names = ", ".join(self.folders)
                advice = f"Choose one of {names}, or null for the first."
                raise UserError(f"data.{setting}={name}: no pairs with this name. {advice}")
        self._evaluated = next(iter(self.folders)) if len(self.folders) == 1 else evaluated
        self._validated, self._cache_bytes = validated, cache_bytes
        self.trained = [name for name, weight in self.weights.items() if weight > 0]
        if not self.trained:
            raise UserError("pairs: all weights are 0. Give the pairs to train on a weight.")
        self._check_vocabularies()

    def __str__(self) -> str:
        return ", ".join(map(str, self.folders.values()))

    @cached_property
    def splits(self) -> dict[str, dict[Split, PairDataset]]:
        """The pairs of each folder and split, mapped on first use. Raises as `pairs.arrow_copies` and `CopyCache` do."""
        if self._cache_bytes is None:
            files = {name: arrow_copies(folder) for name, folder in self.folders.items()}
            return {name: {split: PairDataset(files[name], split) for split in SPLITS} for name in files}
        caches = {name: CopyCache(folder, self._cache_bytes) for name, folder in self.folders.items()}
        return {
            name: {"train": CachedPairs(cache), **{split: PairDataset(cache.files, split) for split in SPLITS[1:]}}
            for name, cache in caches.items()
        }

    @cached_property
    def evaluated(self) -> str:
        """The name of the folder that is evaluated."""
        if self._evaluated is not None:
            return self._evaluated
        both = [name for name, splits in self.splits.items() if splits["val"].text_index and splits["test"].text_index]
        return (both or list(self.folders))[0]

    @cached_property
    def validated(self) -> str:
        """The name of the folder whose validation split selects the best checkpoint."""
        if self._validated is not None:
            return self._validated
        names = [self.evaluated, *self.folders]
        return next((name for name in names if self.splits[name]["val"].text_index), self.evaluated)

    @cached_property
    def training_texts(self) -> TextIndex:
        """The training pairs of each distinct text."""
        train = [self.splits[name]["train"] for name in self.trained]
        if len(train) == 1:
            return train[0].text_index
        return MixedTextIndex.from_folders(
            [pairs.keys_N for pairs in train], [self.weights[name] for name in self.trained]
        )

    def _check_vocabularies(self) -> None:
        (first, known), *others = self.manifests.items()
        for name, manifest in others:
            for kind in ("text", "speech"):
                has, needed = (getattr(each, f"{kind}_vocab_size") for each in (manifest, known))
                if has != needed:
                    raise UserError(
                        f"{self.folders[name]}: {has} {kind} tokens, but the pairs in {self.folders[first]} have {needed}. Use "
                        "pairs of the same Tortoise."
                    )

    def check_splits(self) -> None:
        """Raises UserError if a text is in different splits of two folders."""
        parts = [(name, split, pairs) for name, splits in self.splits.items() for split, pairs in splits.items()]
        unused = np.empty(0, dtype=np.int64)  # the training texts of a folder that is not trained on
        keys = [
            unused if split == "train" and name not in self.trained else pairs.keys_N[pairs.text_index.first()]
            for name, split, pairs in parts
        ]
        part_N = np.repeat(np.arange(len(parts)), [len(keys_U) for keys_U in keys])
        keys_N = np.concatenate(keys)
        order_N = np.argsort(keys_N, kind="stable")
        keys_N, part_N = keys_N[order_N], part_N[order_N]
        split_N = part_N % len(SPLITS)
        clashes = np.flatnonzero((keys_N[1:] == keys_N[:-1]) & (split_N[1:] != split_N[:-1]))
        if not len(clashes):
            return
        here, there = (parts[part_N[clashes[0] + side]] for side in (0, 1))
        (text,) = here[2].column("text", np.flatnonzero(here[2].keys_N == keys_N[clashes[0]])[:1])
        raise UserError(
            f"pairs: {text[:40]!r} is in the {here[1]} split of {self.folders[here[0]]} and in the {there[1]} split of "
            f"{self.folders[there[0]]}. Generate both with the same split.test_percent and split.val_percent."
        )
