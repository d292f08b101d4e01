"""Corpus × Tortoise to pairs of text tokens and speech codes on disk."""

from clvp_train.codes.candidates import FROM_CORPUS, ARCodes
from clvp_train.codes.card import CARD, card
from clvp_train.codes.generate import generate
from clvp_train.codes.manifest import Manifest, read_manifest, write_manifest
from clvp_train.codes.ranks import rank_and_world_size
from clvp_train.codes.reading import arrow_copies, check_complete, open_copies, read_pairs
from clvp_train.codes.recordings import DVAECodes
from clvp_train.codes.shards import SCHEMA, Shard
from clvp_train.codes.sources import CodeSource
from clvp_train.codes.storage import Storage
from clvp_train.codes.tally import report_lines
from clvp_train.codes.tokenizer import TOKENIZER, copy_tokenizer, open_tokenizer

__all__ = [
    "CARD",
    "FROM_CORPUS",
    "SCHEMA",
    "TOKENIZER",
    "ARCodes",
    "CodeSource",
    "DVAECodes",
    "Manifest",
    "Shard",
    "Storage",
    "arrow_copies",
    "card",
    "check_complete",
    "copy_tokenizer",
    "generate",
    "open_copies",
    "open_tokenizer",
    "rank_and_world_size",
    "read_manifest",
    "read_pairs",
    "report_lines",
    "write_manifest",
]
