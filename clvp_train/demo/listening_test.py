"""A blind comparison of CLVP's pick with a random other candidate, and the answers of listeners."""

import csv
import math
import random
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from clvp_train.demo.session import RankedCandidate
from clvp_train.errors import UserError

ANSWERS = ("A is better", "No difference", "B is better")


@dataclass(frozen=True)
class Draw:
    """What determines the candidates."""

    text: str
    voice: str  # empty: stored candidates
    seed: int


@dataclass(frozen=True)
class Trial:
    """The pick and a random other candidate, in random order."""

    draw: Draw
    ranks: tuple[int, int]  # of the candidates that players A and B play; the pick has rank 1


@dataclass
class ListeningTest:
    """The comparisons of one listener. Each draw counts once, and only if its ranking has not been shown before."""

    preferred: Counter[str] = field(default_factory=Counter)  # "pick", "other" or "neither"
    seen: set[Draw] = field(default_factory=set)  # draws whose ranking has been shown
    trial: Trial | None = None  # waits for an answer

    def check_unseen(self, draw: Draw) -> None:
        """Raises UserError if the ranking of these candidates has been shown to the listener."""
        if draw in self.seen:
            raise UserError(
                "you have seen the ranking of these candidates. Change the sentence, the voice or the seed."
            )

    def start(self, draw: Draw, rows: list[RankedCandidate]) -> Trial:
        """Starts a comparison of ranked candidates. Raises UserError if all of them have the same codes."""
        pick, *others = rows
        ranks = [rank for rank, row in enumerate(others, start=2) if row.candidate.codes != pick.candidate.codes]
        if not ranks:
            raise UserError("all candidates are the same. Use a longer text or another seed.")
        first, second = random.sample([1, random.choice(ranks)], k=2)
        self.trial = Trial(draw, (first, second))
        return self.trial

    def answer(self, answer: str, listener: str, file: Path) -> str | None:
        """Counts the answer to the current comparison and appends it to a CSV file.

        Args:
            answer: one of `ANSWERS`.
            listener: distinguishes the listeners of a file.
            file: created if it does not exist.

        Returns:
            What A and B were, in words; None if no comparison waits for an answer.
        """
        if self.trial is None:
            return None
        trial, self.trial = self.trial, None
        rank = dict(zip(ANSWERS, (trial.ranks[0], None, trial.ranks[1])))[answer]
        preferred = "neither" if rank is None else "pick" if rank == 1 else "other"
        self.preferred[preferred] += 1
        self.seen.add(trial.draw)
        row = {"listener": listener, **asdict(trial.draw), "rank_a": trial.ranks[0], "rank_b": trial.ranks[1]}
        row["preferred"] = preferred
        with file.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(row))
            if stream.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
        return ", ".join(
            f"{name} was {'the pick' if rank == 1 else f'rank {rank}'}" for name, rank in zip("AB", trial.ranks)
        )

    def summary(self) -> str:
        """The answers so far, in words."""
        wins, losses, ties = (self.preferred[key] for key in ("pick", "other", "neither"))
        return (
            f"Pick preferred in {wins} of {wins + losses + ties} comparisons, the other candidate in {losses}, no difference "
            f"in {ties}. Two-sided sign test (n = {wins + losses}): p = {sign_test(wins, losses):.2g}."
        )


def sign_test(wins: int, losses: int) -> float:
    """The two-sided p value of wins and losses if both are equally likely."""
    total = wins + losses
    tail = sum(math.comb(total, count) for count in range(min(wins, losses) + 1)) / 2**total
    return min(1.0, 2 * tail)
