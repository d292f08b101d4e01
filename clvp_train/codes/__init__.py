"""Corpus × Tortoise to pairs of text tokens and speech codes on disk."""

from clvp_train.codes.generate import generate
from clvp_train.codes.shards import TOKENIZER, Manifest, read_manifest, read_pairs
from clvp_train.codes.sources import ARCodes, CodeSource, DVAECodes

__all__ = ["TOKENIZER", "ARCodes", "CodeSource", "DVAECodes", "Manifest", "generate", "read_manifest", "read_pairs"]
