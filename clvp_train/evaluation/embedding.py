"""Embedding of everything that an evaluation needs, on all processes. Shapes: N sequences, B batch, L length, X indices, D
width."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from clvp_train.data.collate import Collate
from clvp_train.data.datamodule import check_same_pairs
from clvp_train.data.sampler import EvaluationSampler
from clvp_train.evaluation.evaluation_data import EvaluationData
from clvp_train.losses import gather
from clvp_train.training import CLVPModule
from clvp_train.training.batch_encoder import Tower

Sequences = Sequence[np.ndarray]
Indices = np.ndarray  # (X,) int64, into the texts or the codes of a store


class Embedder:
    """Projects sequences and returns them in the given order, independent of batch size and number of processes.

    Args:
        module: contains the model.
        trainer: runs the model on its devices, in its precision, with its progress bar.
        collate: pads sequences as the model expects them.
        batch_size: sequences per process and step.
    """

    def __init__(self, module: CLVPModule, trainer: L.Trainer, collate: Collate, batch_size: int) -> None:
        self.module, self.trainer, self.collate, self.batch_size = module, trainer, collate, batch_size

    def texts(self, sequences: Sequences) -> torch.Tensor:
        """Returns (N, D) projections of text tokens, float32, not normalised, on every process.

        Raises:
            UserError: the processes have different sequences.
        """
        return self._run("text", sequences, lambda rows: self.collate.texts([_ids(sequences[row]) for row in rows]))

    def speech(self, sequences: Sequences, finished: Sequence[bool]) -> torch.Tensor:
        """Returns (N, D) projections of speech codes. `finished` is False for codes that reached the AR's limit."""

        def batch(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
            return self.collate.speech([_ids(sequences[row]) for row in rows], [finished[row] for row in rows])

        return self._run("speech", sequences, batch)

    def _run(
        self, tower: Tower, sequences: Sequences, batch: Callable[[list[int]], tuple[torch.Tensor, torch.Tensor]]
    ) -> torch.Tensor:
        # sorted by length, which avoids padding; the longest come first, so that a lack of memory shows in the first batch
        order = np.argsort([-len(sequence) for sequence in sequences], kind="stable").tolist()
        loader = DataLoader(
            order,
            batch_size=self.batch_size,
            sampler=EvaluationSampler(len(order), self.trainer.global_rank, self.trainer.world_size),
            collate_fn=lambda rows: (torch.tensor(rows), *batch(rows)),
        )
        embedding = _EmbeddingModule(self.module, tower, sequences)
        self.trainer.test(embedding, loader, verbose=False)
        return embedding.results(len(order))


class _EmbeddingModule(L.LightningModule):
    """Makes Lightning's test loop embed, so that devices, precision and processes are those of the trainer."""

    def __init__(self, module: CLVPModule, tower: Tower, sequences: Sequences) -> None:
        super().__init__()
        self.module, self.tower, self.sequences = module, tower, sequences
        self._parts: list[tuple[torch.Tensor, torch.Tensor]] = []

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            digest = hashlib.blake2b(digest_size=8)
            for sequence in self.sequences:
                digest.update(sequence.tobytes())
            check_same_pairs("the test split", f"{len(self.sequences)} sequences of {self.tower}, {digest.hexdigest()}")

    def test_step(self, batch: Any, batch_index: int) -> None:
        rows_B, ids_BL, mask_BL = batch
        with self.module.full_precision():
            self._parts.append((rows_B, self.module.batch_encoder.project(self.tower, ids_BL, mask_BL)))

    def on_test_epoch_end(self) -> None:
        self._parts = [tuple(gather(torch.cat(parts)) for parts in zip(*self._parts))]  # type: ignore[list-item]

    def results(self, size: int) -> torch.Tensor:
        ((rows, embeds),) = self._parts
        embeds_ND = embeds.new_zeros(size, embeds.shape[1])
        embeds_ND[rows] = embeds  # the sampler repeats rows to give all processes the same number
        return embeds_ND


class EmbeddingStore:
    """Embeddings of an `EvaluationData`: all texts and all codes are embedded in one pass each, and looked up by index.

    Attributes:
        pairs: indices of the texts and of the codes of the held-out pairs.
        perturbations: the same for each of `data.perturbations`.
        candidates: the same for all candidates.
        others: the same for the pairs of each other folder, by name.
        reference: indices of the reference codes.
    """

    def __init__(self, data: EvaluationData, embedder: Embedder) -> None:
        self._texts: list[np.ndarray] = []
        self._codes: list[np.ndarray] = []
        self._finished: list[bool] = []
        pairs, sets = data.pairs, data.candidates
        self.pairs = self._add_texts(pairs.input_ids), self._add_codes(pairs.codes, pairs.finished)
        self.perturbations = [
            (self._add_texts(perturbation.perturbed), self.pairs[1][perturbation.rows])
            if perturbation.side == "text"
            else (
                self.pairs[0][perturbation.rows],
                self._add_codes(perturbation.perturbed, [pairs.finished[row] for row in perturbation.rows]),
            )
            for perturbation in data.perturbations
        ]
        self.candidates = self._add_texts([]), self._add_codes([], [])
        if sets is not None:
            texts = self._add_texts([sets.pairs.input_ids[start] for start in sets.starts])
            self.candidates = texts.repeat(sets.sizes), self._add_codes(sets.pairs.codes, sets.pairs.finished)
        self.others = {
            name: (self._add_texts(other.input_ids), self._add_codes(other.codes, other.finished))
            for name, other in data.others.items()
        }
        reference = data.reference
        self.reference = self._add_codes(reference.codes, reference.finished) if reference else self._add_codes([], [])
        self._text_XD = normalize(embedder.texts(self._texts), dim=-1)
        self._speech_XD = embedder.speech(self._codes, self._finished)

    def texts(self, indices: Indices) -> torch.Tensor:
        """(X, D) text embeddings, L2-normalised."""
        return self._text_XD[torch.from_numpy(indices).to(self._text_XD.device)]

    def projections(self, indices: Indices) -> torch.Tensor:
        """(X, D) speech embeddings, not normalised."""
        return self._speech_XD[torch.from_numpy(indices).to(self._speech_XD.device)]

    def speech(self, indices: Indices) -> torch.Tensor:
        """(X, D) speech embeddings, L2-normalised."""
        return normalize(self.projections(indices), dim=-1)

    def scores(self, pairs: tuple[Indices, Indices]) -> np.ndarray:
        """(X,) cosine similarities of texts with codes, float64."""
        parts = zip(*(np.array_split(indices, 1 + len(indices) // 8192) for indices in pairs))
        return np.concatenate(
            [(self.texts(text).double() * self.speech(code).double()).sum(dim=1).cpu().numpy() for text, code in parts]
        )

    def _add_texts(self, sequences: Sequences) -> Indices:
        self._texts += sequences
        return np.arange(len(self._texts) - len(sequences), len(self._texts))

    def _add_codes(self, sequences: Sequences, finished: Sequence[bool]) -> Indices:
        self._codes += sequences
        self._finished += finished
        return np.arange(len(self._codes) - len(sequences), len(self._codes))


def _ids(sequence: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(sequence)
