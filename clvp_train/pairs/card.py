"""README.md of a folder of pairs: what `datasets` opens, and what a person wants to know."""

import math

import yaml

from clvp_train.models.weight_files import public_name
from clvp_train.pairs.manifest import Manifest
from clvp_train.pairs.shards import PATTERN
from clvp_train.pairs.tally import report_lines

CARD = "README.md"
# the Hub's names for sizes, by the rows that they are just too small for
SIZES = (
    (1e3, "n<1K"),
    (1e4, "1K<n<10K"),
    (1e5, "10K<n<100K"),
    (1e6, "100K<n<1M"),
    (1e7, "1M<n<10M"),
    (math.inf, "n>10M"),
)
TEXT = """---
{metadata}---
# Pairs of texts and speech codes: {corpus}

Made by clvp_train {version} (`codes={source}`) with the Tortoise `{tortoise}`.
`datasets.load_dataset("FOLDER")` opens the shards.

```
{report}
```

| column | meaning |
| --- | --- |
| `id`, `text` | of the utterance |
| `split` | train, val or test, by a hash of the text |
| `input_ids` | text tokens (tokenizer: `tokenizer/`) |
| `speech_ids` | speech codes, 21.5 a second, without a stop token |
| `voice` | the voice or speaker that says it |
| `candidate` | 0, 1, … among the candidates of the text |
| `finished` | false: the candidate ran into the limit of codes |
| `log_probability` | in nats, of the codes and the stop, under the autoregressive model; null for recordings |
| `seed` | of the draw; null for recordings |

`manifest.json` holds the settings, and name, rows, bytes and SHA-256 of each shard{skipped}.
"""


def card(manifest: Manifest, license: str | None = None, language: str | None = None) -> str:
    """The text of a complete folder's README.md.

    Args:
        manifest: of the folder.
        license: the Hub's identifier of the licence of texts and codes.
        language: of the texts, such as en.
    """
    rows = sum(manifest.report["pairs"].values())
    metadata = {
        "license": license,
        "language": language,
        "pretty_name": f"Texts and speech codes: {manifest.corpus}",
        "tags": ["tortoise-tts", "clvp", "speech-codes"],
        "size_categories": [next(name for most, name in SIZES if rows < most)],
        "configs": [{"config_name": "default", "data_files": PATTERN}],
    }
    known = {name: value for name, value in metadata.items() if value is not None}
    return TEXT.format(
        metadata=yaml.safe_dump(known, sort_keys=False, allow_unicode=True),
        corpus=manifest.corpus,
        version=manifest.versions.get("clvp_train", ""),
        source=manifest.source,
        tortoise=public_name(manifest.tortoise),
        report="\n".join(report_lines(manifest.report)),
        skipped="; `skipped.jsonl` what was left out" if manifest.report["skipped"] else "",
    )
