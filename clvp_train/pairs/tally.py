"""Counting pairs: what a shard holds, and what all of them hold together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CODES_PER_SECOND = 22_050 / 1024  # of speech


@dataclass
class Tally:
    """Counts that add up over shards."""

    utterances: Counter[str] = field(default_factory=Counter)  # by split, those with a pair
    pairs: Counter[str] = field(default_factory=Counter)  # by split
    lengths: Counter[int] = field(default_factory=Counter)  # pairs by their number of codes
    unfinished: int = 0  # pairs whose candidate ran into the limit
    skipped: Counter[str] = field(default_factory=Counter)  # by kind

    @classmethod
    def of(cls, table: pa.Table, skipped: Sequence[dict[str, Any]]) -> "Tally":
        """Counts a shard, and what was left out of it."""
        splits = table["split"].to_pylist()
        return cls(
            utterances=Counter(dict(zip(table["id"].to_pylist(), splits)).values()),
            pairs=Counter(splits),
            lengths=Counter(pc.list_value_length(table["speech_ids"]).to_pylist()),
            unfinished=pc.sum(pc.invert(table["finished"])).as_py() or 0,
            skipped=Counter(entry["kind"] for entry in skipped),
        )

    def add(self, other: "Tally") -> None:
        for name in ("utterances", "pairs", "lengths", "skipped"):
            getattr(self, name).update(getattr(other, name))
        self.unfinished += other.unfinished

    @property
    def num_codes(self) -> int:
        return sum(length * count for length, count in self.lengths.items())

    def report(self, codes_per_second: float | None) -> dict[str, Any]:
        """The closing report, see `report_lines`.

        Args:
            codes_per_second: how fast this run drew over all ranks; None if it drew nothing.
        """
        lengths = sorted(self.lengths)
        ends = np.cumsum([self.lengths[length] for length in lengths])
        num_pairs = self.pairs.total()
        middle = [
            lengths[np.searchsorted(ends, place, side="right")] for place in ((num_pairs - 1) // 2, num_pairs // 2)
        ]
        return {
            "utterances": dict(self.utterances),
            "pairs": dict(self.pairs),
            "hours": self.num_codes / CODES_PER_SECOND / 3600,
            "codes": {
                "min": lengths[0],
                "median": sum(middle) / 2,
                "mean": self.num_codes / num_pairs,
                "max": lengths[-1],
            },
            "unfinished": self.unfinished,
            "skipped": dict(self.skipped),
            "codes_per_second": codes_per_second,
        }


def report_lines(report: dict[str, Any]) -> list[str]:
    """The report of a manifest, to be printed."""

    def by_split(counts: dict[str, int]) -> str:
        parts = [f"{split} {counts[split]}" for split in ("train", "val", "test") if split in counts]
        return f"{sum(counts.values())} ({', '.join(parts)})"

    num_pairs, codes, speed = sum(report["pairs"].values()), report["codes"], report["codes_per_second"]
    rows = {
        "utterances": by_split(report["utterances"]),
        "pairs": by_split(report["pairs"]),
        "speech": f"{report['hours']:.2f} h",
        "codes a pair": f"{codes['min']} to {codes['max']}, median {codes['median']:g}, mean {codes['mean']:.1f}",
        "ran into the limit": f"{report['unfinished']} ({report['unfinished'] / num_pairs:.1%})",
        "skipped": ", ".join(f"{kind}: {count}" for kind, count in sorted(report["skipped"].items())) or "none",
    }
    if speed is not None:
        rows["speed"] = f"{speed:.0f} codes/s, {speed / CODES_PER_SECOND:.0f} × real time"
    return [f"{name:<19}{value}" for name, value in rows.items()]
