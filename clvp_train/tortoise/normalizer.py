"""Texts as tortoise-tts reads them: spelled out in lower-case ASCII, and split into words, punctuation, and spaces.

Imports transformers and regex only: together with `processing_clvp.py` this file is uploaded to the Hub as remote code.
"""

import re
import unicodedata

import regex
from transformers import ClvpTokenizer, PreTrainedTokenizerBase
from transformers.models.clvp.number_normalizer import EnglishNormalizer

# transliterations of what has no ASCII decomposition: Latin letters and the punctuation of English books
ASCII = {
    **dict.fromkeys("‘’‛′´ʼ", "'"),
    **dict.fromkeys("“”‟", '"'),
    **dict.fromkeys("‐‑‒–−", "-"),
    **dict.fromkeys("·•", "*"),
    **dict.fromkeys("\u2028\u2029\u200b", " "),
    **dict(zip("—―…″«»‹›¿¡‚„⁄", ("--", "--", "...", "''", "<<", ">>", "<", ">", "?", "!", ",", ",,", "/"))),
    **dict(zip("µ¶£€¢¥§©®™†", ("u", "P", "PS", "EUR", "C/", "Y=", "SS", "(c)", "(r)", "(tm)", "+"))),
    **dict(zip("°×÷±½¼¾№", ("deg", "x", "/", "+-", " 1/2", " 1/4", " 3/4", "No. "))),
    **dict(zip("ßæÆœŒøØłŁđĐ", ("ss", "ae", "AE", "oe", "OE", "o", "O", "l", "L", "d", "D"))),
    **dict(zip("þÞðÐı", ("th", "Th", "d", "D", "i"))),
}
TRANSLITERATE = str.maketrans(ASCII)
ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
ORDINALS["twelve"] = "twelfth"
POWERS = ("quintillion", "sextillion", "septillion", "octillion", "nonillion", "decillion")  # of 1000, from the sixth


class TortoiseNormalizer(EnglishNormalizer):
    """Text to lower-case ASCII with numbers and abbreviations spelled out, as tortoise-tts does before tokenization.

    transformers' `EnglishNormalizer` differs: it drops ’ and é instead of writing ' and e, reads 1984 as "one thousand, nine
    hundred eighty-four" and 5th as "fiveth". The AR was trained on the spelling here. Source: `utils/tokenizer.py` of
    tortoise-tts, which uses inflect for numbers and Unidecode for ASCII. Writing systems other than Latin are dropped, where
    tortoise-tts transliterates them.
    """

    def convert_to_ascii(self, text: str) -> str:
        decomposed = unicodedata.normalize("NFKD", text.translate(TRANSLITERATE))
        return decomposed.encode("ascii", "ignore").decode()

    def normalize_numbers(self, text: str) -> str:
        # Python reads no integers of more than 4300 digits, and nobody reads them aloud
        return super().normalize_numbers(re.sub(r"[0-9,]{4301,}", " ", text))

    def number_to_words(self, num: int) -> str:
        """3025 is "three thousand twenty-five", 3125 "three thousand, one hundred twenty-five"; numbers from 10 ** 36 on,
        which have no names in tortoise-tts either, are read digit by digit."""
        power = (len(str(num)) - 1) // 3
        if power < 6:
            words = super().number_to_words(num)
        elif power < 6 + len(POWERS):
            first, rest = divmod(num, 1000**power)
            words = f"{self.number_to_words(first)} {POWERS[power - 6]}"
            words += f", {self.number_to_words(rest)}" if rest else ""
        else:
            return " ".join(super(TortoiseNormalizer, self).number_to_words(int(digit)) for digit in str(num))
        return re.sub(r", ([a-z-]+)$", r" \1", words)

    def _expand_ordinal(self, match: re.Match[str]) -> str:  # type: ignore[override]
        words = self.number_to_words(int(match[0][:-2]))
        # "one hundred one", but "one hundred and first"
        words = re.sub(r"hundred (?!thousand|\w+illion)", "hundred and ", words)
        words = re.sub(r"(thousand|illion) (?=[a-z-]+$)", r"\1 and ", words)
        start, last = re.fullmatch(r"(.*?)(\w+)", words).groups()
        return start + ORDINALS.get(last, last[:-1] + "ieth" if last.endswith("y") else last + "th")

    def _expand_number(self, match: re.Match[str]) -> str:  # type: ignore[override]
        """Reads 1001 to 2999 as years ("nineteen oh five"), except multiples of 100 and 2001 to 2009."""
        number = int(match[0])
        century, year = divmod(number, 100)
        if not 1000 < number < 3000 or year == 0 or 2000 < number < 2010:
            return super()._expand_number(match)  # type: ignore[arg-type]
        return f"{self.number_to_words(century)} {'oh ' if year < 10 else ''}{self.number_to_words(year)}"


def as_tortoise_reads(tokenizer: ClvpTokenizer) -> ClvpTokenizer:
    """Makes a tokenizer give the ids of tortoise-tts, and keep them when it is saved and opened again.

    It is saved in transformers' format; opened by transformers alone, it normalises texts with `EnglishNormalizer`.
    """
    tokenizer._normalizer = (
        TortoiseNormalizer()
    )  # `normalizer` has no setter, and a subclass would be saved by its name
    # tortoise-tts splits at whitespace and punctuation; transformers' pattern reads "'tis" as the contraction 't and "is"
    tokenizer.pat = regex.compile(r"\w+|[^\w\s]+|\s+")
    # the name of a special token in a text is plain text
    tokenizer.split_special_tokens = True
    # transformers reads merges.txt from its second line on, but saves it without a header: the first merge would be lost
    tokenizer.add_bpe_version_header = True
    forget_loading_arguments(tokenizer)
    return tokenizer


def forget_loading_arguments(tokenizer: PreTrainedTokenizerBase) -> None:
    """Leaves out of `tokenizer_config.json` how the tokenizer was opened, which transformers would save with it."""
    for name in ("local_files_only", "is_local"):
        tokenizer.init_kwargs.pop(name, None)
