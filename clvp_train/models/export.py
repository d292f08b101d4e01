"""Writes a CLVP in other formats, and compares what was written with the model.

Shapes: B batch, L length, P projection width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from clvp_train.io import atomic_write
from clvp_train.models.convert_tortoise import TOWERS
from clvp_train.models.modeling_clvp import CLVPModel

TOLERANCE = 1e-4  # of a cosine similarity
TORTOISE_FILE, PROGRAM_FILE = "clvp2.pth", "{}_encoder.pt2"
CHECKED_LENGTHS = ((3, 11), (1, 40), (5, 2))  # batch size and length of the inputs that are compared
Encode = Callable[[Tensor, Tensor], Tensor]


class Encoder(nn.Module):
    """One tower of a CLVP with its projection: (B, L) ids and masks to (B, P) normalised embeddings."""

    def __init__(self, model: CLVPModel, tower: str) -> None:
        super().__init__()
        self.tower = copy.deepcopy(getattr(model, f"{tower}_model"))
        self.projection = copy.deepcopy(getattr(model, f"{tower}_projection"))
        self.tower.config.padding = "mask"  # inputs as tortoise-tts makes them then give the same scores in any batch

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return normalize(self.projection(self.tower(ids, mask, return_dict=True).pooler_output), dim=-1)


def export_programs(model: CLVPModel, folder: Path) -> dict[str, Encode]:
    """Writes each encoder as a program of `torch.export`, for any batch size and length, which needs torch alone.

    Returns:
        The programs by tower, as read from the files.
    """
    sizes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=1)}
    programs = dict[str, Encode]()
    for tower in TOWERS:
        example = torch.ones(2, 16, dtype=torch.long)
        exported = torch.export.export(
            Encoder(model, tower).eval(), (example, example.bool()), dynamic_shapes={"ids": sizes, "mask": sizes}
        )
        file = folder / PROGRAM_FILE.format(tower)
        with atomic_write(file) as partial, partial.open("wb") as stream:
            torch.export.save(exported, stream)
        programs[tower] = torch.export.load(file).module()
    return programs


def encoders(model: CLVPModel) -> dict[str, Encode]:
    """The encoders of a model by tower."""
    return {tower: Encoder(model, tower).eval() for tower in TOWERS}


@torch.no_grad()
def largest_difference(model: CLVPModel, exported: dict[str, Encode]) -> float:
    """The largest absolute difference of a cosine similarity between a model and exported encoders, over random ids."""
    draw, ours, worst = torch.Generator().manual_seed(0), encoders(model), 0.0
    for batch, length in CHECKED_LENGTHS:
        lengths_B1 = torch.randint(1, length + 1, (batch, 1), generator=draw)
        embeds: dict[str, list[Tensor]] = {"ours": [], "theirs": []}
        for tower in TOWERS:
            config: Any = getattr(model.config, f"{tower}_config")
            ids = torch.randint(config.vocab_size, (batch, length), generator=draw)
            mask = torch.arange(length) < lengths_B1
            embeds["ours"].append(ours[tower](ids, mask))
            embeds["theirs"].append(exported[tower](ids, mask))
        scores = [text_BP @ speech_BP.T for text_BP, speech_BP in embeds.values()]
        worst = max(worst, (scores[0] - scores[1]).abs().max().item())
    return worst
