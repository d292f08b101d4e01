"""Rows that cannot become pairs: left out and listed, or an error."""

import logging
from typing import Any, Literal, get_args

from clvp_train.errors import UserError

Policy = Literal["skip", "error"]
TOO_LONG, NO_TOKENS, BAD_AUDIO, NO_VOICE, NO_CODES = "text too long", "no tokens", "bad audio", "no voice", "no codes"
FEW = 5  # warnings in full; the rest is counted
log = logging.getLogger(__name__)


def check_policy(policy: str) -> None:
    if policy not in get_args(Policy):
        raise UserError(f"codes.bad_rows={policy}: choose one of {', '.join(get_args(Policy))}")


class BadRows:
    """Collects what is left out.

    Args:
        policy: "skip" leaves a bad row out, "error" raises.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy, self._warnings = policy, 0
        self._entries: list[dict[str, Any]] = []

    def add(self, id_: str, kind: str, reason: str) -> None:
        """Raises UserError if the policy is "error"."""
        if self.policy == "error":
            raise UserError(f"utterance {id_}: {reason}, or set codes.bad_rows=skip to leave such rows out")
        self._entries.append({"id": id_, "kind": kind, "reason": reason})
        self.warn(f"skipped utterance {id_}: {reason}")

    def warn(self, message: str) -> None:
        """Logs the first few warnings."""
        self._warnings += 1
        if self._warnings <= FEW:
            log.warning(message)
        if self._warnings == FEW:
            log.warning("further ones are counted only")

    def take(self) -> list[dict[str, Any]]:
        """What was left out since the last call: {id, kind, reason} each."""
        taken, self._entries = self._entries, []
        return taken
