"""Hard negatives: the codes of a pair with a mistake in them. Shapes: S speech length."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clvp_train.errors import UserError, check_number
from clvp_train.faults import FAULTS, FOREIGN, Codes, drop

HARD_NEGATIVES = ("cut_off", "repeat", "drop", "swap", "foreign_tail")


@dataclass(frozen=True)
class HardNegatives:
    """How many faulty copies of its codes training sees beside a pair, and what is wrong with them. The names are those of the
    settings in `data`."""

    num_hard_negatives: int = 0  # K for each pair
    hard_negatives: Sequence[str] = HARD_NEGATIVES  # faults to draw from, each as likely
    fault_share: Sequence[float] = (0.1, 0.5)  # of the codes that go wrong: least and most

    def __post_init__(self) -> None:
        check_number("data.num_hard_negatives", self.num_hard_negatives, 0)
        names = (self.hard_negatives,) if isinstance(self.hard_negatives, str) else tuple(self.hard_negatives or ())
        if not names or any(name not in FAULTS for name in names):
            raise UserError(f"data.hard_negatives=[{','.join(map(str, names))}]: choose some of [{','.join(FAULTS)}]")
        bounds = tuple(self.fault_share) if isinstance(self.fault_share, Sequence) else (self.fault_share,)
        for bound in bounds:
            check_number("data.fault_share", bound, 0, whole=False)
        if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= 1:
            raise UserError(f"data.fault_share={list(bounds)}: set it to [LEAST,MOST], shares of the codes from 0 to 1")
        # plain tuples, whatever a config system gave, for they travel to loader processes
        object.__setattr__(self, "hard_negatives", names)
        object.__setattr__(self, "fault_share", bounds)

    def draw(
        self, codes_S: Codes, rng: np.random.Generator, another: Callable[[], Codes], limit: int | None = None
    ) -> list[torch.Tensor]:
        """K faulty copies of the codes.

        Args:
            codes_S: of a pair.
            rng: draws faults, shares and places.
            another: gives the codes of another text; it may draw from `rng` too.
            limit: how many codes are served; None: all. No copy is the same as the original within it.
        """
        return [
            torch.from_numpy(self._copy(codes_S[:limit], rng, another, limit)) for _ in range(self.num_hard_negatives)
        ]

    def _copy(self, codes_S: Codes, rng: np.random.Generator, another: Callable[[], Codes], limit: int | None) -> Codes:
        name = self.hard_negatives[int(rng.integers(len(self.hard_negatives)))]
        least, most = self.fault_share
        share = rng.uniform(least, most)
        faulty_S = FAULTS[name](codes_S, rng, share, another() if name in FOREIGN else None)
        lies_behind_the_limit = np.array_equal(faulty_S[:limit], codes_S)
        return drop(codes_S, rng, share) if lies_behind_the_limit else faulty_S
