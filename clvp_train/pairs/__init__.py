"""Pairs of text tokens and speech codes on disk, made from a corpus and a Tortoise."""

from clvp_train.pairs.ar import ARCodes
from clvp_train.pairs.code_tables import CodeTable
from clvp_train.pairs.codec import Codec
from clvp_train.pairs.copy_cache import CopyCache
from clvp_train.pairs.dvae import DVAECodes
from clvp_train.pairs.generate import Plan, generate, make_plan
from clvp_train.pairs.imported import import_pairs
from clvp_train.pairs.importer import Columns, Importer
from clvp_train.pairs.judges import CandidateJudge, RecordingDistance, read_recordings, recordings_digest
from clvp_train.pairs.progress import Progress
from clvp_train.pairs.reader import (
    TOKENIZER,
    arrow_copies,
    check_complete,
    copy_tokenizer,
    open_copies,
    open_tokenizer,
    read_pairs,
    read_shard,
)
from clvp_train.pairs.schema import (
    CODES_PER_SECOND,
    IMPORTED,
    MANIFEST,
    SCHEMA,
    Manifest,
    Shard,
    read_manifest,
    write_manifest,
)
from clvp_train.pairs.sources import FROM_CORPUS, CodeSource
from clvp_train.pairs.storage import Storage
from clvp_train.pairs.stored import StoredCodes
from clvp_train.pairs.summary import card, report_lines
from clvp_train.pairs.voices import folder_voices

__all__ = [
    "CODES_PER_SECOND",
    "FROM_CORPUS",
    "IMPORTED",
    "MANIFEST",
    "SCHEMA",
    "TOKENIZER",
    "ARCodes",
    "CandidateJudge",
    "CodeSource",
    "CodeTable",
    "Codec",
    "Columns",
    "CopyCache",
    "DVAECodes",
    "Importer",
    "Manifest",
    "Plan",
    "Progress",
    "RecordingDistance",
    "Shard",
    "Storage",
    "StoredCodes",
    "arrow_copies",
    "card",
    "check_complete",
    "copy_tokenizer",
    "folder_voices",
    "generate",
    "import_pairs",
    "make_plan",
    "open_copies",
    "open_tokenizer",
    "read_manifest",
    "read_pairs",
    "read_recordings",
    "read_shard",
    "recordings_digest",
    "report_lines",
    "write_manifest",
]
