"""Where speech codes come from: what every source must tell and do."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from clvp_train.corpus import Corpus, Split, Utterance
from clvp_train.errors import check_number
from clvp_train.pairs.bad_rows import NO_TOKENS, BadRows, Policy, check_policy
from clvp_train.tortoise import FrozenTortoise

Row = dict[str, Any]
UNKNOWN = "unknown"  # the voice of utterances without a speaker


@dataclass(eq=False)
class CodeSource(ABC):
    """Turns utterances into rows of `shards.SCHEMA`, the same rows whatever else the corpus holds.

    Attributes:
        batch_size: how many are made side by side.
        bad_rows: "skip" leaves out what cannot become a pair and lists it; "error" stops at it.
        shard_size: utterances a shard; a kill loses at most one shard's work a rank.
    """

    _: KW_ONLY
    batch_size: int = 256
    bad_rows: Policy = "skip"
    shard_size: int = 1024

    name: ClassVar[str]

    def __post_init__(self) -> None:
        check_number("codes.batch_size", self.batch_size, 1)
        check_number("codes.shard_size", self.shard_size, 1)
        check_policy(self.bad_rows)

    @property
    @abstractmethod
    def needs_audio(self) -> bool:
        """Whether recordings shape the codes."""

    @abstractmethod
    def check(self, tortoise: FrozenTortoise) -> None:
        """Raises UserError for what settings and Tortoise alone show to be wrong."""

    @abstractmethod
    def look_at(self, tortoise: FrozenTortoise, number: int, utterance: Utterance) -> None:
        """Is told of every utterance before any is encoded. Raises UserError if it cannot be encoded and may not be skipped."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What shapes the codes besides Tortoise and corpus, by the names that a user knows."""

    @abstractmethod
    def begin(self, tortoise: FrozenTortoise, corpus: Corpus, bad: BadRows) -> None:
        """Prepares for `encode`; not called if all shards are there. Raises UserError."""

    @abstractmethod
    def num_rows(self, split: Split) -> int:
        """How many rows an utterance gives."""

    @abstractmethod
    def encode(
        self,
        tortoise: FrozenTortoise,
        utterances: Sequence[tuple[Utterance, Split]],
        bad: BadRows,
        on_candidate: Callable[[int], None],
    ) -> list[Row]:
        """The rows of these utterances, in their order.

        Args:
            tortoise: gives tokens and codes.
            utterances: those of a shard.
            bad: takes what cannot be encoded.
            on_candidate: called after each row with its number of codes.

        Raises:
            UserError: a row cannot be encoded and may not be skipped.
        """


def has_tokens(input_ids: list[int], utterance: Utterance, bad: BadRows) -> bool:
    """Whether a text gives any tokens; if not, `bad` is told."""
    if not input_ids:
        reason = f"text {utterance.text!r} gives no tokens: write it in letters that Tortoise knows"
        bad.add(utterance.id, NO_TOKENS, reason)
    return bool(input_ids)


def clip_name(utterance: Utterance) -> str:
    """What to call an utterance's recording in messages."""
    return utterance.audio if isinstance(utterance.audio, str) else f"of utterance {utterance.id}"
