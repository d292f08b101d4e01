"""English text as tortoise-tts spells it out before it is tokenized.

transformers' `EnglishNormalizer`, which its tokenizer uses, differs where it matters: it drops ’ and é instead of writing ' and
e, reads 1984 as "one thousand, nine hundred eighty-four" and 5th as "fiveth". The AR was trained on the spelling here.
Source: `utils/tokenizer.py` of tortoise-tts, whose numbers come from inflect and whose ASCII from Unidecode.
"""

import re
import unicodedata

from transformers.models.clvp.number_normalizer import EnglishNormalizer

# what no decomposition turns into ASCII, for the Latin script and the punctuation of English books
ASCII = str.maketrans(
    {
        **dict.fromkeys("‘’‛′´ʼ", "'"),
        **dict.fromkeys("“”‟", '"'),
        **dict.fromkeys("‐‑‒–−", "-"),
        **dict.fromkeys("·•", "*"),
        **{"—": "--", "―": "--", "…": "...", "″": "''", "«": "<<", "»": ">>", "‹": "<", "›": ">", "¿": "?", "¡": "!"},
        **{"‚": ",", "„": ",,", "⁄": "/", "µ": "u", "¶": "P", "\u2028": " ", "\u2029": " "},
        **{"£": "PS", "€": "EUR", "¢": "C/", "¥": "Y=", "§": "SS", "©": "(c)", "®": "(r)", "™": "(tm)", "†": "+"},
        **{
            "°": "deg",
            "×": "x",
            "÷": "/",
            "±": "+-",
            "½": " 1/2",
            "¼": " 1/4",
            "¾": " 3/4",
            "№": "No. ",
            "\u200b": " ",
        },
        **{
            "ß": "ss",
            "æ": "ae",
            "Æ": "AE",
            "œ": "oe",
            "Œ": "OE",
            "ø": "o",
            "Ø": "O",
            "ł": "l",
            "Ł": "L",
            "đ": "d",
            "Đ": "D",
        },
        **{"þ": "th", "Þ": "Th", "ð": "d", "Ð": "D", "ı": "i"},
    }
)
ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
ORDINALS["twelve"] = "twelfth"


class TortoiseNormalizer(EnglishNormalizer):
    """Text to lower-case ASCII with numbers and abbreviations spelt out.

    Writing systems other than Latin are dropped, where tortoise-tts transliterates them.
    """

    def convert_to_ascii(self, text: str) -> str:
        decomposed = unicodedata.normalize("NFKD", text.translate(ASCII))
        return decomposed.encode("ascii", "ignore").decode()

    def number_to_words(self, num: int) -> str:
        """3025 is "three thousand twenty-five", 3125 "three thousand, one hundred twenty-five"."""
        return re.sub(r", ([a-z-]+)$", r" \1", super().number_to_words(num))

    def _expand_ordinal(self, match: re.Match[str]) -> str:  # type: ignore[override]
        words = self.number_to_words(int(match[0][:-2]))
        # "one hundred one", but "one hundred and first"
        words = re.sub(r"hundred (?!thousand|\w+illion)", "hundred and ", words)
        words = re.sub(r"(thousand|illion) (?=[a-z-]+$)", r"\1 and ", words)
        start, last = re.fullmatch(r"(.*?)(\w+)", words).groups()
        return start + ORDINALS.get(last, last[:-1] + "ieth" if last.endswith("y") else last + "th")

    def _expand_number(self, match: re.Match[str]) -> str:  # type: ignore[override]
        """1905 is "nineteen oh five"; so is every number from 1000 to 3000 but 1900 and its like, and 2000 to 2009."""
        number = int(match[0])
        century, year = divmod(number, 100)
        if not 1000 < number < 3000 or year == 0 or 2000 < number < 2010:
            return super()._expand_number(match)  # type: ignore[arg-type]
        return f"{self.number_to_words(century)} {'oh ' if year < 10 else ''}{self.number_to_words(year)}"
