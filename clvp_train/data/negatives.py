"""Hard negatives: the codes of a pair with a mistake in them. Shapes: S speech length."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clvp_train.data.perturbations import FOREIGN, PERTURBATIONS, Codes, drop
from clvp_train.errors import UserError, check_number

HARD_NEGATIVES = ("cut_off", "repeat", "drop", "swap", "foreign_tail")


@dataclass(frozen=True)
class HardNegatives:
    """How many perturbed copies of its codes training sees beside a pair, and what is wrong with them. The names are those of the
    settings in `data`."""

    num_hard_negatives: int = 0  # K for each pair
    hard_negatives: Sequence[str] = HARD_NEGATIVES  # perturbations to draw from, each as likely
    perturbation_share: Sequence[float] = (0.1, 0.5)  # of the codes that go wrong: least and most

    def __post_init__(self) -> None:
        check_number("data.num_hard_negatives", self.num_hard_negatives, 0)
        names = (self.hard_negatives,) if isinstance(self.hard_negatives, str) else tuple(self.hard_negatives or ())
        if not names or any(name not in PERTURBATIONS for name in names):
            raise UserError(
                f"data.hard_negatives=[{','.join(map(str, names))}]: choose some of [{','.join(PERTURBATIONS)}]"
            )
        bounds = (
            tuple(self.perturbation_share)
            if isinstance(self.perturbation_share, Sequence)
            else (self.perturbation_share,)
        )
        for bound in bounds:
            check_number("data.perturbation_share", bound, 0, whole=False)
        if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= 1:
            raise UserError(
                f"data.perturbation_share={list(bounds)}: set it to [LEAST,MOST], shares of the codes from 0 to 1"
            )
        # plain tuples, whatever a config system gave, for they travel to loader processes
        object.__setattr__(self, "hard_negatives", names)
        object.__setattr__(self, "perturbation_share", bounds)

    def draw(
        self, codes_S: Codes, rng: np.random.Generator, another: Callable[[], Codes], limit: int | None = None
    ) -> list[torch.Tensor]:
        """K perturbed copies of the codes.

        Args:
            codes_S: of a pair.
            rng: draws perturbations, shares and places.
            another: gives the codes of another text; it may draw from `rng` too.
            limit: how many codes are served; None: all. No copy is the same as the original within it.
        """
        return [
            torch.from_numpy(self._copy(codes_S[:limit], rng, another, limit)) for _ in range(self.num_hard_negatives)
        ]

    def _copy(self, codes_S: Codes, rng: np.random.Generator, another: Callable[[], Codes], limit: int | None) -> Codes:
        name = self.hard_negatives[int(rng.integers(len(self.hard_negatives)))]
        least, most = self.perturbation_share
        share = rng.uniform(least, most)
        faulty_S = PERTURBATIONS[name](codes_S, rng, share, another() if name in FOREIGN else None)
        lies_behind_the_limit = np.array_equal(faulty_S[:limit], codes_S)
        return drop(codes_S, rng, share) if lies_behind_the_limit else faulty_S
