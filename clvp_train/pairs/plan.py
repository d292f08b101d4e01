"""What is to be made: one pass over the corpus, in which everything is checked that can be before the work."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from clvp_train.corpus import Corpus, Split, Utterance, fingerprint, split_of
from clvp_train.errors import check_number
from clvp_train.pairs.manifest import Manifest
from clvp_train.pairs.shards import shard_name
from clvp_train.pairs.sources import CodeSource
from clvp_train.tortoise import FrozenTortoise

ALGORITHM = (
    2  # raise it when the same inputs come to give other pairs, so that folders made before are not taken for them
)


@dataclass(frozen=True)
class Plan:
    manifest: Manifest  # as it stands before the first shard
    num_rows: tuple[int, ...]  # planned for each shard

    def split_of(self, text: str) -> Split:
        """The split of a text, by the manifest's shares."""
        settings = self.manifest.settings
        return split_of(text, settings["split.test_percent"], settings["split.val_percent"])

    @property
    def names(self) -> list[str]:
        return [shard_name(index, len(self.num_rows)) for index in range(len(self.num_rows))]


def make_plan(
    corpus: Corpus, tortoise: FrozenTortoise, source: CodeSource, test_percent: float, val_percent: float
) -> Plan:
    """Reads the corpus once, as a stream.

    Raises:
        UserError: bad input.
    """
    check_number("split.test_percent", test_percent, 0, whole=False)
    check_number("split.val_percent", val_percent, 0, whole=False)
    source.check(tortoise)
    num_rows: list[int] = []

    def seen() -> Iterator[Utterance]:
        for number, utterance in corpus.stream(audio=source.needs_audio):
            source.look_at(tortoise, number, utterance)
            if number % source.shard_size == 0:
                num_rows.append(0)
            num_rows[-1] += source.num_rows(split_of(utterance.text, test_percent, val_percent))
            yield utterance

    settings = {
        "algorithm": ALGORITHM,
        "corpus": fingerprint(seen()),
        "tortoise": tortoise.fingerprint(),
        "tortoise.positions": tortoise.autoregressive.positions,
        "tortoise.dtype": str(tortoise.autoregressive.head.weight.dtype).removeprefix("torch."),
        **{f"tortoise.sampling.{name}": value for name, value in asdict(tortoise.sampling).items()},
        "codes": source.name,
        **source.settings(),
        "codes.shard_size": source.shard_size,
        "split.test_percent": float(test_percent),
        "split.val_percent": float(val_percent),
    }
    text = json.dumps(settings, sort_keys=True)
    manifest = Manifest(
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        corpus=corpus.name,
        source=source.name,
        num_shards=len(num_rows),
        text_vocab_size=tortoise.num_text_tokens,
        speech_vocab_size=tortoise.num_speech_tokens,
        tortoise=str(tortoise.source),
        settings=json.loads(text),
        versions={"clvp_train": _version(), "torch": torch.__version__},
    )
    return Plan(manifest, tuple(num_rows))


def _version() -> str:
    try:
        return version("clvp-train")
    except PackageNotFoundError:  # a clone that is not installed
        return "unknown"
