"""Corpus × Tortoise to pairs of text tokens and speech codes on disk."""

from clvp_train.codes.candidates import FROM_CORPUS, ARCodes
from clvp_train.codes.generate import generate
from clvp_train.codes.manifest import Manifest, read_manifest
from clvp_train.codes.ranks import rank_and_world_size
from clvp_train.codes.reading import arrow_copies, open_copies, read_pairs
from clvp_train.codes.recordings import DVAECodes
from clvp_train.codes.shards import SCHEMA, Shard
from clvp_train.codes.sources import CodeSource
from clvp_train.codes.tally import report_lines
from clvp_train.codes.tokenizer import TOKENIZER, copy_tokenizer, open_tokenizer

__all__ = [
    "FROM_CORPUS",
    "SCHEMA",
    "TOKENIZER",
    "ARCodes",
    "CodeSource",
    "DVAECodes",
    "Manifest",
    "Shard",
    "arrow_copies",
    "copy_tokenizer",
    "generate",
    "open_copies",
    "open_tokenizer",
    "rank_and_world_size",
    "read_manifest",
    "read_pairs",
    "report_lines",
]
