"""Readers of text and audio corpora, in any layout and language, and the split of their texts."""

from clvp_train.corpus.base import (
    AUDIO_SUFFIXES,
    OTHER_AUDIO_SUFFIXES,
    Corpus,
    LocalCorpus,
    Row,
    Utterance,
    clean_text,
    is_clutter,
)
from clvp_train.corpus.folders import VCTK, Folder
from clvp_train.corpus.hub import Hub
from clvp_train.corpus.ljspeech import LJSpeech
from clvp_train.corpus.readers import Asterisk, TextLines, Texts
from clvp_train.corpus.splits import Split, fingerprint, split_of, split_of_hash, text_hash, text_key
from clvp_train.corpus.tables import ManifestCorpus

__all__ = [
    "AUDIO_SUFFIXES",
    "OTHER_AUDIO_SUFFIXES",
    "VCTK",
    "Asterisk",
    "Corpus",
    "Folder",
    "Hub",
    "LJSpeech",
    "LocalCorpus",
    "ManifestCorpus",
    "Row",
    "Split",
    "TextLines",
    "Texts",
    "Utterance",
    "clean_text",
    "fingerprint",
    "is_clutter",
    "split_of",
    "split_of_hash",
    "text_hash",
    "text_key",
]
