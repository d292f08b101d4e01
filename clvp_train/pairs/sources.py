"""The interface of all sources of speech codes, and the handling of rows that cannot become pairs."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import torch
from transformers import PreTrainedTokenizerBase

from clvp_train.corpus import Corpus, Split, Utterance
from clvp_train.errors import UserError
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio
from clvp_train.tortoise.tokenizer import loses_most_letters

Policy = Literal["skip", "error"]
Utterances = Sequence[tuple[Utterance, Split]]
Rows = list[dict[str, Any]]  # of `schema.SCHEMA`
OnCandidate = Callable[[int], None]  # receives the number of codes
TOO_LONG, NO_TOKENS, BAD_AUDIO, NO_VOICE, NO_CODES = "text too long", "no tokens", "bad audio", "no voice", "no codes"
NOT_STORED, LONG_AUDIO, NO_LETTERS = "not stored", "recording too long", "unknown letters"
MAX_WARNINGS = 5  # logged in full
FROM_CORPUS = "corpus"  # voices or recordings of the corpus itself instead of files
UNKNOWN = "unknown"  # the voice of utterances without a speaker
log = logging.getLogger(__name__)


class BadRows:
    """Collects the rows that are skipped.

    Args:
        policy: "skip" leaves a bad row out, "error" raises.
        remedy: what the message of an error advises.
    """

    def __init__(self, policy: Policy, remedy: str = "Or set codes.bad_rows=skip to skip such rows.") -> None:
        self.policy, self.remedy, self._warnings = policy, remedy, 0
        self._entries: list[dict[str, Any]] = []

    def add(self, id_: str, kind: str, reason: str) -> None:
        """Records a row. Raises UserError if the policy is "error"."""
        if self.policy == "error":
            raise UserError(f"utterance {id_}: {reason.rstrip('.')}. {self.remedy}")
        self._entries.append({"id": id_, "kind": kind, "reason": reason})
        self.warn(f"skipped utterance {id_}: {reason}")

    def warn(self, message: str) -> None:
        """Logs the first few warnings."""
        self._warnings += 1
        if self._warnings <= MAX_WARNINGS:
            log.warning(message)
        if self._warnings == MAX_WARNINGS:
            log.warning("further warnings are only counted")

    def take(self) -> list[dict[str, Any]]:
        """The rows skipped since the last call, as {id, kind, reason}."""
        entries, self._entries = self._entries, []
        return entries


@dataclass(eq=False)
class CodeSource(ABC):
    """Turns utterances into rows of `schema.SCHEMA`. The rows of an utterance do not depend on the other utterances.

    Attributes:
        batch_size: candidates or clips that are processed in parallel.
        bad_rows: "skip" leaves out and lists what cannot become a pair; "error" stops.
        shard_size: utterances per shard; a kill loses at most one shard of work per rank.
        weight: with several sources, how often training draws this one in proportion to the others.
    """

    _: KW_ONLY
    batch_size: int = 256
    bad_rows: Policy = "skip"
    shard_size: int = 1024
    weight: float = 1.0

    name: ClassVar[str]

    def __post_init__(self) -> None:
        if self.bad_rows not in get_args(Policy):  # any other value would skip
            raise UserError(f"codes.bad_rows={self.bad_rows}: unknown. Choose one of {', '.join(get_args(Policy))}.")

    @property
    @abstractmethod
    def needs_audio(self) -> bool:
        """Whether the codes depend on recordings."""

    @property
    def has_quality(self) -> bool:
        """Whether rows may have a quality."""
        return True  # a source of the user's own may judge by itself

    @abstractmethod
    def check(self, tortoise: FrozenTortoise) -> None:
        """Checks what settings and Tortoise alone determine. Raises UserError."""

    @abstractmethod
    def inspect(self, tortoise: FrozenTortoise, number: int, utterance: Utterance) -> None:
        """Receives every utterance before any is encoded. Raises UserError if it cannot be encoded and must not be skipped."""

    def noted(self) -> Any:
        """What `inspect` has noted, as JSON, so that other ranks and later runs need not read the corpus. If a class overrides
        `inspect` without this method, each rank reads it in each run."""
        return {}

    def note(self, noted: Any) -> None:  # noqa: B027  optional
        """Takes the place of `inspect` with what `noted` has returned."""

    def settings(self) -> dict[str, Any]:
        """What determines the codes besides Tortoise and corpus, by setting."""
        return {}

    def prepare(self, tortoise: FrozenTortoise, corpus: Corpus, bad: BadRows) -> None:  # noqa: B027  optional
        """Prepares for `encode`. Called only if shards are missing. Raises UserError."""

    def num_rows(self, utterance: Utterance, split: Split) -> int:
        """The number of rows of an utterance, if it is not skipped."""
        return 1

    @abstractmethod
    def encode(self, tortoise: FrozenTortoise, utterances: Utterances, bad: BadRows, on_candidate: OnCandidate) -> Rows:
        """The rows of the utterances, in their order.

        Args:
            tortoise: gives tokens and codes.
            utterances: those of one shard.
            bad: receives what cannot be encoded.
            on_candidate: called after each row.

        Raises:
            UserError: a row cannot be encoded and must not be skipped.
        """


def has_tokens(
    tokenizer: PreTrainedTokenizerBase, input_ids: Sequence[int], utterance: Utterance, bad: BadRows
) -> bool:
    """Whether a text has tokens, and most of its letters have; if not, it is added to `bad`."""
    if len(input_ids) == 0:
        reason = f"text {utterance.text!r} has no tokens. Write it in characters that the tokenizer supports"
        bad.add(utterance.id, NO_TOKENS, reason)
        return False
    if loses_most_letters(tokenizer, utterance.text):
        reason = f"text {utterance.text!r}: the tokenizer knows less than half of the letters"
        remedy = "Train a tokenizer with `python -m clvp_train.train_tokenizer`, for codes of recordings"
        bad.add(utterance.id, NO_LETTERS, f"{reason}. {remedy}")
        return False
    return True


def load_recording(utterance: Utterance, warn: Callable[[str], None] = log.warning) -> torch.Tensor:
    """(N,) samples of an utterance's recording, as `audio.load_audio`. Raises UserError if it cannot be read."""
    name = utterance.audio if isinstance(utterance.audio, str) else f"of utterance {utterance.id}"
    return load_audio(utterance.audio or b"", name, warn)


def check_codes(setting: str, codes: pa.Array | pa.ChunkedArray, tortoise: FrozenTortoise) -> None:
    """Raises UserError, which begins with the setting, if there are ids that the DVAE of the Tortoise does not have."""
    found, size = pc.min_max(codes).as_py(), tortoise.num_speech_tokens
    if len(codes) and not 0 <= found["min"] <= found["max"] < size:
        raise UserError(
            f"{setting}: the codes range from {found['min']} to {found['max']}, but those of tortoise={tortoise.source} from 0 "
            f"to {size - 1}. Use codes of the same DVAE, without start and stop tokens."
        )
