"""Summaries of a folder of pairs: counts, the report in its manifest, and its data card README.md."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from clvp_train.io.sanitize import escape_markdown
from clvp_train.models.weight_files import public_name
from clvp_train.pairs.schema import CODES_PER_SECOND, FILE_NAME, MIXED, Manifest

# the Hub's size categories, by their upper bound in rows
SIZE_CATEGORIES = (
    (1e3, "n<1K"),
    (1e4, "1K<n<10K"),
    (1e5, "10K<n<100K"),
    (1e6, "100K<n<1M"),
    (1e7, "1M<n<10M"),
    (math.inf, "n>10M"),
)
TEXT = """---
{metadata}---
# Text–code pairs: {corpus}

{origin}
Open them with `datasets.load_dataset("FOLDER")`.

```
{report}
```

| column | meaning |
| --- | --- |
| `id`, `text` | id and text of the utterance |
| `split` | train, val or test, by a hash of the text |
| `input_ids` | text tokens (tokenizer: `tokenizer/`) |
| `speech_ids` | speech codes, {code_rate:.3g} a second, without a stop token |
| `voice` | voice or speaker |
| `candidate` | number of the candidate of the text, from 0 |
| `finished` | false: the candidate reached the maximum number of codes |
| `log_probability` | in nats, of the codes and the stop, under the autoregressive model; null for recordings |
| `seed` | random seed of the candidate; null for recordings |
| `quality` | of the candidate, by the judge in `manifest.json`, higher is better; null where nothing was judged |

`manifest.json` contains the settings, and the name, rows, bytes and SHA-256 of each shard{skipped}.
"""


@dataclass
class Tally:
    """Counts of pairs, which can be added over shards."""

    utterances: Counter[str] = field(default_factory=Counter)  # with at least one pair, by split
    pairs: Counter[str] = field(default_factory=Counter)  # by split
    lengths: Counter[int] = field(default_factory=Counter)  # pairs, by number of codes
    unfinished: int = 0  # pairs whose candidate reached the maximum number of codes
    skipped: Counter[str] = field(default_factory=Counter)  # rows, by kind

    @classmethod
    def of(cls, table: pa.Table, skipped: Sequence[dict[str, Any]]) -> "Tally":
        """The counts of a shard and of its skipped rows."""
        splits = table["split"].to_pylist()
        return cls(
            utterances=Counter(dict(zip(table["id"].to_pylist(), splits)).values()),
            pairs=Counter(splits),
            lengths=Counter(pc.list_value_length(table["speech_ids"]).to_pylist()),
            unfinished=pc.sum(pc.invert(table["finished"])).as_py() or 0,
            skipped=Counter(entry["kind"] for entry in skipped),
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Tally":
        """The inverse of `json.dumps(vars(tally))`, which turns lengths into strings."""
        lengths = Counter({int(length): count for length, count in values["lengths"].items()})
        counts = {name: Counter(values[name]) for name in ("utterances", "pairs", "skipped")}
        return cls(lengths=lengths, unfinished=values["unfinished"], **counts)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    @property
    def num_codes(self) -> int:
        return sum(length * count for length, count in self.lengths.items())

    def report(self, codes_per_second: float | None, code_rate: float = CODES_PER_SECOND) -> dict[str, Any]:
        """The report in the manifest, see `report_lines`.

        Args:
            codes_per_second: the speed of this run over all ranks; None if it made no codes.
            code_rate: codes per second of speech.
        """
        lengths = sorted(self.lengths)
        ends = np.cumsum([self.lengths[length] for length in lengths])
        num_pairs = self.pairs.total()
        ranks = ((num_pairs - 1) // 2, num_pairs // 2)
        middle = [lengths[np.searchsorted(ends, rank, side="right")] for rank in ranks]
        return {
            "utterances": dict(self.utterances),
            "pairs": dict(self.pairs),
            "hours": self.num_codes / code_rate / 3600,
            "code_rate": code_rate,
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
    """The report of a manifest, as lines to print."""

    def by_split(counts: dict[str, int]) -> str:
        parts = [f"{split} {counts[split]}" for split in ("train", "val", "test") if split in counts]
        return f"{sum(counts.values())} ({', '.join(parts)})"

    num_pairs, codes, speed = sum(report["pairs"].values()), report["codes"], report["codes_per_second"]
    rows = {
        "utterances": by_split(report["utterances"]),
        "pairs": by_split(report["pairs"]),
        "speech": f"{report['hours']:.2f} h",
        "codes per pair": f"{codes['min']} to {codes['max']}, median {codes['median']:g}, mean {codes['mean']:.1f}",
        "reached max_codes": f"{report['unfinished']} ({report['unfinished'] / num_pairs:.1%})",
        "skipped": ", ".join(f"{kind}: {count}" for kind, count in sorted(report["skipped"].items())) or "none",
    }
    if speed is not None:
        rate = report.get("code_rate", CODES_PER_SECOND)  # earlier versions did not store it
        rows["speed"] = f"{speed:.0f} codes/s, {speed / rate:.0f} × real time"
    return [f"{name:<19}{value}" for name, value in rows.items()]


def card(manifest: Manifest, license: str | None = None, language: str | list[str] | None = None) -> str:
    """The README.md of a complete folder.

    Args:
        manifest: the manifest of the folder.
        license: the Hub's identifier of the licence of texts and codes.
        language: the language of the texts, such as en, or several.
    """
    rows = sum(manifest.report["pairs"].values())
    metadata = {
        "license": license,
        "language": language,
        "pretty_name": f"Text–code pairs: {manifest.corpus}",
        "tags": [*(["tortoise-tts"] if manifest.tortoise else []), "clvp", "speech-codes"],
        "size_categories": [next(name for bound, name in SIZE_CATEGORIES if rows < bound)],
        "configs": [{"config_name": "default", "data_files": _data_files(manifest)}],
    }
    present = {name: value for name, value in metadata.items() if value is not None}
    return TEXT.format(
        metadata=yaml.safe_dump(present, sort_keys=False, allow_unicode=True),
        corpus=escape_markdown(manifest.corpus),
        origin=_origin(manifest),
        code_rate=manifest.code_rate,
        report="\n".join(report_lines(manifest.report)),
        skipped="; `skipped.jsonl` lists the skipped rows" if manifest.report["skipped"] else "",
    )


def _data_files(manifest: Manifest) -> str | list[dict[str, str]]:
    """The files of each split, by the split's usual name on the Hub."""
    kinds = {found[1] for shard in manifest.shards if (found := FILE_NAME.fullmatch(shard.name))}
    if MIXED in kinds:  # a folder of an earlier version
        return f"{MIXED}-*.parquet"
    names = {"train": "train", "val": "validation", "test": "test"}
    return [{"split": name, "path": f"{kind}-*.parquet"} for kind, name in names.items() if kind in kinds]


def _origin(manifest: Manifest) -> str:
    made, source = f"by clvp_train {manifest.versions.get('clvp_train', '')}", escape_markdown(manifest.source)
    if not manifest.tortoise:
        codec = ", ".join(
            f"{name.removeprefix('codec.')} {value}"
            for name, value in manifest.settings.items()
            if name.startswith("codec.") and value is not None
        )
        return f"Imported {made}. Codec: {escape_markdown(codec)}."
    return f"Made {made} (`codes={source}`) with the Tortoise `{escape_markdown(public_name(manifest.tortoise))}`."
