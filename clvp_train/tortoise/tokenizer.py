"""Tortoise's tokenizer: transformers' `ClvpTokenizer`, made to give the token ids that tortoise-tts gives."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import regex
from transformers import ClvpTokenizer, PreTrainedTokenizerBase

from clvp_train.errors import UserError
from clvp_train.tortoise.basic_tokenizer import TOKENIZER_FILE, read_basic_tokenizer
from clvp_train.tortoise.english import TortoiseNormalizer

HEADER = "#version: 0.2\n"


def as_tortoise_reads(tokenizer: ClvpTokenizer) -> ClvpTokenizer:
    """Makes a tokenizer give the ids of tortoise-tts, and keep them when it is saved and opened again.

    What it then saves is transformers' format; opened by transformers alone, it spells texts out as `EnglishNormalizer` does.
    """
    tokenizer._normalizer = TortoiseNormalizer()
    # tortoise-tts splits at whitespace and punctuation; transformers' pattern takes "'tis" for the contraction 't and "is"
    tokenizer.pat = regex.compile(r"\w+|[^\w\s]+|\s+")
    # the name of a special token in a text is text
    tokenizer.split_special_tokens = True
    # transformers reads merges.txt from its second line on, but saves it without a header: the first merge would be lost
    tokenizer.add_bpe_version_header = True
    return tokenizer


def read_tokenizer(folder: Path) -> ClvpTokenizer:
    """Opens `vocab.json` and `merges.txt` of a folder.

    Raises:
        UserError: they are not there or damaged.
    """
    try:
        return as_tortoise_reads(ClvpTokenizer.from_pretrained(folder))
    except (OSError, TypeError, ValueError):
        raise UserError(f"{folder} holds no ClvpTokenizer: copy its files beside the weights") from None


def read_saved_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Opens a tokenizer of either kind that `save_pretrained` wrote: Tortoise's, or a basic one. Raises UserError."""
    if (folder / TOKENIZER_FILE).exists() and not (folder / "merges.txt").exists():
        return read_basic_tokenizer(folder)
    return read_tokenizer(folder)


def read_original_tokenizer(file: Path) -> ClvpTokenizer:
    """Opens tortoise-tts' `tokenizer.json`.

    Raises:
        UserError: the file is missing or no BPE of the tokenizers library, or has tokens beyond ASCII, which the English
            spelling of texts never gives.
    """
    try:
        model = json.loads(file.read_text(encoding="utf-8"))["model"]
        vocabulary, merges = (
            model["vocab"],
            [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]],
        )
        if not {"[STOP]", "[UNK]", "[SPACE]"} <= vocabulary.keys() or any(len(merge) != 2 for merge in merges):
            raise ValueError("no [STOP], [UNK] and [SPACE], or merges that are no pairs")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is no tokenizer of tortoise-tts ({error!r}): give its tokenizer.json") from None
    foreign = sorted(token for token in vocabulary if not token.isascii())
    if foreign:
        raise UserError(
            f"{file} has {len(foreign)} tokens beyond ASCII {foreign[:3]}, which texts spelt out in English never give: give a "
            "tokenizer of English"
        )
    with TemporaryDirectory() as scratch:
        vocab_file, merges_file = Path(scratch, "vocab.json"), Path(scratch, "merges.txt")
        vocab_file.write_text(json.dumps(vocabulary))
        merges_file.write_text(HEADER + "".join(f"{first} {second}\n" for first, second in merges))
        return as_tortoise_reads(ClvpTokenizer(str(vocab_file), str(merges_file)))
