"""A tokenizer for texts in any writing system: byte-pair encoding of letters that are only lower-cased.

Tortoise's own spells texts out in English and knows ASCII alone. This one is a plain `PreTrainedTokenizerFast`, which
transformers opens without this package.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from clvp_train.errors import UserError

STOP, UNKNOWN = "[STOP]", "[UNK]"  # ids 0 and 1, as in Tortoise's
TOKENIZER_FILE = "tokenizer.json"


def train_basic_tokenizer(texts: Iterable[str], vocab_size: int = 255) -> PreTrainedTokenizerFast:
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


def read_basic_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
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
