"""Embedding sequences on all ranks. Shapes: N sequences, B batch, L length, D width."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from clvp_train.data.collate import Collate
from clvp_train.data.datamodule import check_same_pairs
from clvp_train.data.sampler import EvaluationSampler
from clvp_train.losses import gather
from clvp_train.training import CLVPModule
from clvp_train.training.module import Tower

Sequences = Sequence[np.ndarray]


class Embedder:
    """Projects sequences in the order that they come in, whatever the ranks and batches.

    Args:
        module: whose model embeds.
        trainer: runs it on its devices in its precision and shows progress.
        collate: pads as the model is served.
        batch_size: sequences that a rank embeds at once.
    """

    def __init__(self, module: CLVPModule, trainer: L.Trainer, collate: Collate, batch_size: int) -> None:
        self.module, self.trainer, self.collate, self.batch_size = module, trainer, collate, batch_size

    def texts(self, sequences: Sequences) -> torch.Tensor:
        """(N, D) projections of text tokens, float32, not normalised, on every rank.

        Raises:
            UserError: ranks have different sequences.
        """
        return self._run("text", sequences, lambda rows: self.collate.texts([_ids(sequences[row]) for row in rows]))

    def speech(self, sequences: Sequences, finished: Sequence[bool]) -> torch.Tensor:
        """Likewise of speech codes. `finished` says of each whether the AR ended it itself."""

        def batch(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
            return self.collate.speech([_ids(sequences[row]) for row in rows], [finished[row] for row in rows])

        return self._run("speech", sequences, batch)

    def _run(
        self, half: Tower, sequences: Sequences, batch: Callable[[list[int]], tuple[torch.Tensor, torch.Tensor]]
    ) -> torch.Tensor:
        # neighbours of about one length: little padding, and the longest first, so that memory shows at once if it is short
        order = np.argsort([-len(sequence) for sequence in sequences], kind="stable").tolist()
        loader = DataLoader(
            order,
            batch_size=self.batch_size,
            sampler=EvaluationSampler(len(order), self.trainer.global_rank, self.trainer.world_size),
            collate_fn=lambda rows: (torch.tensor(rows), *batch(rows)),
        )
        embedding = _Embedding(self.module, half, sequences)
        self.trainer.test(embedding, loader, verbose=False)
        return embedding.found(len(order))


class _Embedding(L.LightningModule):
    def __init__(self, module: CLVPModule, half: Tower, sequences: Sequences) -> None:
        super().__init__()
        self.module, self.which, self.sequences = module, half, sequences
        self._parts: list[tuple[torch.Tensor, torch.Tensor]] = []

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            digest = hashlib.blake2b(digest_size=8)
            for sequence in self.sequences:
                digest.update(sequence.tobytes())
            check_same_pairs("the test split", f"{len(self.sequences)} sequences of {self.which}, {digest.hexdigest()}")

    def test_step(self, batch: Any, batch_index: int) -> None:
        rows_B, ids_BL, mask_BL = batch
        self._parts.append((rows_B, self.module.project(self.which, ids_BL, mask_BL)))

    def on_test_epoch_end(self) -> None:
        self._parts = [tuple(gather(torch.cat(parts)) for parts in zip(*self._parts))]  # type: ignore[list-item]

    def found(self, size: int) -> torch.Tensor:
        ((rows, embeds),) = self._parts
        embeds_ND = embeds.new_zeros(size, embeds.shape[1])
        embeds_ND[rows] = embeds  # what ranks that came out short embedded twice lands in one place
        return embeds_ND


def _ids(sequence: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(sequence)
