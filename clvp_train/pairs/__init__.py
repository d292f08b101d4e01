"""Corpus × Tortoise to pairs of text tokens and speech codes on disk."""

from clvp_train.pairs.candidates import FROM_CORPUS, ARCodes
from clvp_train.pairs.card import CARD, card
from clvp_train.pairs.generate import generate
from clvp_train.pairs.manifest import Manifest, read_manifest, write_manifest
from clvp_train.pairs.progress import Progress
from clvp_train.pairs.ranks import rank_and_world_size
from clvp_train.pairs.reading import arrow_copies, check_complete, open_copies, read_pairs
from clvp_train.pairs.recordings import DVAECodes
from clvp_train.pairs.shards import SCHEMA, Shard
from clvp_train.pairs.sources import CodeSource
from clvp_train.pairs.storage import Storage
from clvp_train.pairs.tally import CODES_PER_SECOND, report_lines
from clvp_train.pairs.tokenizer import TOKENIZER, copy_tokenizer, open_tokenizer
from clvp_train.pairs.voices import folder_voices

__all__ = [
    "CARD",
    "CODES_PER_SECOND",
    "FROM_CORPUS",
    "SCHEMA",
    "TOKENIZER",
    "ARCodes",
    "CodeSource",
    "DVAECodes",
    "Manifest",
    "Progress",
    "Shard",
    "Storage",
    "arrow_copies",
    "card",
    "check_complete",
    "copy_tokenizer",
    "folder_voices",
    "generate",
    "open_copies",
    "open_tokenizer",
    "rank_and_world_size",
    "read_manifest",
    "read_pairs",
    "report_lines",
    "write_manifest",
]
