"""README.md of a folder of pairs: what `datasets` opens, and what a person wants to know."""

from clvp_train.codes.manifest import Manifest
from clvp_train.codes.shards import PATTERN
from clvp_train.codes.tally import report_lines

CARD = "README.md"
TEXT = """---
configs:
- config_name: default
  data_files: "{pattern}"
---
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


def card(manifest: Manifest) -> str:
    """The text of a complete folder's README.md."""
    return TEXT.format(
        pattern=PATTERN,
        corpus=manifest.corpus,
        version=manifest.versions.get("clvp_train", ""),
        source=manifest.source,
        tortoise=manifest.tortoise,
        report="\n".join(report_lines(manifest.report)),
        skipped="; `skipped.jsonl` what was left out" if manifest.report["skipped"] else "",
    )
