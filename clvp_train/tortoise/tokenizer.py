"""Tokenizers: Tortoise's, with the token ids that tortoise-tts gives, and custom ones for texts in any writing system."""

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, ClvpTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from clvp_train.errors import UserError
from clvp_train.io.digests import check_digests
from clvp_train.tortoise.normalizer import as_tortoise_reads, forget_loading_arguments

HEADER = "#version: 0.2\n"
CLVP = "ClvpTokenizer"
STOP, UNKNOWN, SPACE = "[STOP]", "[UNK]", "[SPACE]"  # ids 0, 1, and 2, as in Tortoise's tokenizer
SPACE_CHARACTER = "▁"  # a text contains it instead of spaces where [SPACE] would be split into its letters
TOKENIZER_FILE = "tokenizer.json"
FILES = ("vocab.json", "merges.txt", "*token*.json")  # of `save_pretrained`
TortoiseTokenizer = ClvpTokenizer | PreTrainedTokenizerFast  # of an AR for English, or for another language


def read_tokenizer(folder: Path) -> ClvpTokenizer:
    """Reads `vocab.json` and `merges.txt` of a folder. Raises UserError if they are missing, empty or damaged."""
    check_digests(folder, *FILES)
    try:
        tokenizer = ClvpTokenizer.from_pretrained(folder)
    except Exception:  # what is raised depends on the content
        raise UserError(f"{folder}: no ClvpTokenizer. Copy its vocab.json and merges.txt there.") from None
    if not tokenizer.encoder or not tokenizer.bpe_ranks:
        raise UserError(f"{folder}: vocab.json or merges.txt is empty. Copy them again from the original tokenizer.")
    return as_tortoise_reads(tokenizer)


def read_saved_tokenizer(folder: Path) -> TortoiseTokenizer:
    """Reads what `save_pretrained` wrote, of Tortoise's tokenizer or any other of transformers. Raises UserError."""
    if (folder / TOKENIZER_FILE).exists() and not (folder / "merges.txt").exists():
        return read_custom_tokenizer(folder)
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        is_tortoises = settings.get("tokenizer_class", CLVP) == CLVP
    except (OSError, ValueError, AttributeError):
        is_tortoises = True
    if is_tortoises:
        return read_tokenizer(folder)
    check_digests(folder, *FILES)
    return cast(TortoiseTokenizer, _auto_tokenizer(str(folder)))


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, a `tokenizer.json` of tortoise-tts, or a Hub id. Raises UserError."""
    path = Path(name).expanduser()
    if path.is_file():
        return read_original_tokenizer(path)
    return read_saved_tokenizer(path) if path.is_dir() else _auto_tokenizer(name)


def _auto_tokenizer(name: str) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # what is raised depends on the content and the network
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        raise UserError(f"tokenizer={name}: cannot be opened ({reason}). Use a folder or a Hub id of one.") from None
    forget_loading_arguments(tokenizer)
    return as_tortoise_reads(tokenizer) if isinstance(tokenizer, ClvpTokenizer) else tokenizer


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of what determines the tokens, as far as its class lets it be known."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    merges = [" ".join(merge) for merge in getattr(tokenizer, "bpe_ranks", ())]
    parts = fast.to_str() if fast is not None else json.dumps([tokenizer.get_vocab(), merges], sort_keys=True)
    return hashlib.sha256(f"{type(tokenizer).__name__} {parts}".encode()).hexdigest()


def read_original_tokenizer(file: Path) -> TortoiseTokenizer:
    """Reads a `tokenizer.json` of tortoise-tts, or of an AR that was fine-tuned for another language.

    English texts are normalised to ASCII. A tokenizer with tokens beyond ASCII is of another language, for which tortoise-tts
    has no spelling rules: its texts are only lower-cased, unless it has upper-case tokens.

    Raises:
        UserError: the file is missing or not a BPE of the tokenizers library with Tortoise's special tokens.
    """
    try:
        model = json.loads(file.read_text(encoding="utf-8"))["model"]
        vocabulary = model["vocab"]
        merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]
        if not {STOP, UNKNOWN, SPACE} <= vocabulary.keys() or any(len(merge) != 2 for merge in merges):
            raise ValueError("no [STOP], [UNK] and [SPACE], or merges that are not pairs")
        if not all(token.isascii() for token in vocabulary):
            return _other_language(vocabulary, merges)
    except Exception as error:  # the tokenizers library raises bare ones
        raise UserError(f"{file}: not a tokenizer of tortoise-tts ({error!r}). Use its tokenizer.json.") from None
    with TemporaryDirectory() as scratch:
        vocab_file, merges_file = Path(scratch, "vocab.json"), Path(scratch, "merges.txt")
        vocab_file.write_text(json.dumps(vocabulary))
        merges_file.write_text(HEADER + "".join(f"{first} {second}\n" for first, second in merges))
        return as_tortoise_reads(ClvpTokenizer(str(vocab_file), str(merges_file)))


def _other_language(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
    """Splits texts as tortoise-tts does, at spaces, each a [SPACE], and at punctuation."""
    has_case = any(token != token.lower() for token in vocabulary.keys() - {STOP, UNKNOWN, SPACE})
    ids = {SPACE_CHARACTER if token == SPACE else token: id_ for token, id_ in vocabulary.items()}
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            *([] if has_case else [normalizers.Lowercase()]),
            normalizers.Replace(Regex(r"\s+"), SPACE_CHARACTER),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(SPACE_CHARACTER, "isolated"), pre_tokenizers.Whitespace()]
    )
    return _fast(tokenizer)


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """For transformers. The name of a special token in a text is plain text."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNKNOWN, pad_token=STOP, split_special_tokens=True
    )


def code_tokenizer(num_codes: int) -> PreTrainedTokenizerFast:
    """Reads speech codes that are written as numbers with spaces in between, such as "12 7 99"."""
    vocabulary = {str(code): code for code in range(num_codes)} | {UNKNOWN: num_codes}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN, pad_token=UNKNOWN)


def loses_most_letters(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Whether most letters of a text give no token, or the unknown one, as those of other scripts do in Tortoise's tokenizer.
    What is left, such as punctuation and numbers, does not say what is spoken."""
    letters = [character for character in text if character.isalpha()]
    return 2 * sum(_is_lost(tokenizer, letter) for letter in letters) > len(letters)


@lru_cache(maxsize=2**16)
def _is_lost(tokenizer: PreTrainedTokenizerBase, letter: str) -> bool:
    ids = tokenizer(letter)["input_ids"]
    return not ids or tokenizer.unk_token_id in ids


def train_custom_tokenizer(texts: Iterable[str], vocab_size: int = 255) -> PreTrainedTokenizerFast:
    """Learns a byte-pair encoding of lower-cased letters in any writing system, where Tortoise's is limited to ASCII.

    The result is a plain `PreTrainedTokenizerFast`, which transformers opens without this package.

    Args:
        texts: training texts.
        vocab_size: maximum number of tokens, including the two special ones and every letter. Tortoise's has 255.

    Raises:
        UserError: the texts have no letters, or more than fit.
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
        raise UserError("corpus: the texts have no letters. Use a corpus with texts.")
    if len(letters) + 2 > vocab_size:
        raise UserError(
            f"vocab_size={vocab_size}: too few for {len(letters)} different letters and 2 special tokens. Set it to at least "
            f"{len(letters) + 2}."
        )
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[STOP, UNKNOWN], show_progress=False)
    tokenizer.train_from_iterator(normalised, trainer)
    return _fast(tokenizer)


def read_custom_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """Reads a folder that `save_pretrained` wrote, of this or any other fast tokenizer. Raises UserError."""
    check_digests(Path(folder).expanduser(), *FILES)
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(Path(folder).expanduser())
    except Exception:  # the tokenizers library raises bare ones
        raise UserError(
            f"tortoise.tokenizer={folder}: no {TOKENIZER_FILE}. Use a folder of `python -m clvp_train.train_tokenizer`."
        ) from None
    forget_loading_arguments(tokenizer)
    return tokenizer
