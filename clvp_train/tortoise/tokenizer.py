"""Tortoise's tokenizer: transformers' `ClvpTokenizer`, made to give the token ids that tortoise-tts gives."""

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import regex
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import ClvpTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from clvp_train.errors import UserError
from clvp_train.tortoise.english import TortoiseNormalizer

HEADER = "#version: 0.2\n"
STOP, UNKNOWN = "[STOP]", "[UNK]"  # ids 0 and 1, as in Tortoise's
TOKENIZER_FILE = "tokenizer.json"


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
        return read_custom_tokenizer(folder)
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


def train_custom_tokenizer(texts: Iterable[str], vocab_size: int = 255) -> PreTrainedTokenizerFast:
    """Learns a vocabulary.

    Args:
        texts: to learn from.
        vocab_size: tokens at most, the two special ones and every letter included. Tortoise's has 255.

    Raises:
        UserError: the texts have more letters than that, or none.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), spaces, normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.Punctuation("isolated")]
    )
    normalised = [tokenizer.normalizer.normalize_str(text) for text in texts]
    letters = sorted(set("".join(normalised)))
    if not letters:
        raise UserError("the corpus has no letters: give one with texts")
    if len(letters) + 2 > vocab_size:
        raise UserError(
            f"vocab_size={vocab_size} is less than the {len(letters)} different letters of the corpus and 2 special tokens: "
            f"set it to more than {len(letters) + 2}"
        )
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[STOP, UNKNOWN], show_progress=False)
    tokenizer.train_from_iterator(normalised, trainer)
    # the name of a special token in a text is text
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNKNOWN, pad_token=STOP, split_special_tokens=True
    )


def read_custom_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """Opens a folder that `save_pretrained` wrote, of this or any other fast tokenizer.

    Raises:
        UserError: it holds none.
    """
    try:
        return PreTrainedTokenizerFast.from_pretrained(Path(folder).expanduser())
    except Exception:  # the tokenizers library raises bare ones
        raise UserError(
            f"tortoise.tokenizer={folder} holds no {TOKENIZER_FILE}: give a folder of `python -m clvp_train.train_tokenizer`"
        ) from None
