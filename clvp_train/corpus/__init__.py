"""Readers of text + audio corpora, in any layout and any language, and the split of their texts."""

from clvp_train.corpus.asterisk import Asterisk
from clvp_train.corpus.folder import Folder
from clvp_train.corpus.hub import Hub
from clvp_train.corpus.ljspeech import LJSpeech
from clvp_train.corpus.manifest import ManifestCorpus
from clvp_train.corpus.splits import Split, fingerprint, split_of, text_key
from clvp_train.corpus.text import TextLines
from clvp_train.corpus.texts import Texts
from clvp_train.corpus.utterance import Corpus, Row, Utterance, clean_text

__all__ = [
    "Asterisk",
    "Corpus",
    "Folder",
    "Hub",
    "LJSpeech",
    "ManifestCorpus",
    "Row",
    "Split",
    "TextLines",
    "Texts",
    "Utterance",
    "clean_text",
    "fingerprint",
    "split_of",
    "text_key",
]
