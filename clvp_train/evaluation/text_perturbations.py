"""Perturbations of a text. Shapes: W words.

A perturbation takes the words of a text and returns other words, or None if it does not apply:

    words: at least one. Text written without spaces is split into letters, see `words_of`.
    rng: draws the position.
    share: of the words that are perturbed, 0 to 1; rounded to at least one word.
    other: words of another text, used by `replace_words`.

`change_number` and `negate` change one word, whatever the share. Digits are changed in any language; number words and negations
are English.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

Words = list[str]
TextPerturbation = Callable[[Words, np.random.Generator, float, Words], Words | None]

_UNITS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_POWERS = ["hundred", "thousand", "million"]
_ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
_NUMBERS = {word: kind for kind in (_UNITS, _TEENS, _TENS, _POWERS, _ORDINALS) for word in kind}
# fmt: off
_AUXILIARIES = [
    "am", "is", "are", "was", "were", "be", "been", "have", "has", "had", "hath", "do", "does", "did", "doth", "can", "could",
    "shall", "should", "shalt", "will", "would", "wilt", "may", "might", "must",
]
# fmt: on


def words_of(text: str) -> Words:
    """Returns the words of a text; its letters if it is written without spaces."""
    words = text.split()
    return words if len(words) > 1 or text.isascii() else list(text)


def text_of(words: Sequence[str], like: str) -> str:
    """Joins words of `words_of(like)`, or a perturbation of them, to a text."""
    return ("" if len(like.split()) == 1 and not like.isascii() else " ").join(words)


def drop_words(words: Words, rng: np.random.Generator, share: float, other: Words) -> Words | None:
    """Leaves out a span."""
    if len(words) < 2:
        return None
    length = _length(words, share)
    start = int(rng.integers(len(words) - length + 1))
    return words[:start] + words[start + length :]


def repeat_words(words: Words, rng: np.random.Generator, share: float, other: Words) -> Words | None:
    """Repeats a span."""
    length = min(_length(words, share), len(words))
    start = int(rng.integers(len(words) - length + 1))
    return words[: start + length] + words[start:]


def swap_words(words: Words, rng: np.random.Generator, share: float, other: Words) -> Words | None:
    """Swaps two adjacent spans, each at most half of the text."""
    size = min(_length(words, share), len(words) // 2)
    starts = [
        start
        for start in range(len(words) - 2 * size + 1)
        if _plain(words[start : start + size]) != _plain(words[start + size : start + 2 * size])
    ]
    if not size or not starts:
        return None
    start = starts[int(rng.integers(len(starts)))]
    middle, end = start + size, start + 2 * size
    return words[:start] + words[middle:end] + words[start:middle] + words[end:]


def replace_words(words: Words, rng: np.random.Generator, share: float, other: Words) -> Words | None:
    """Replaces a span by as many words of another text."""
    length = min(_length(words, share), len(words), len(other))
    start, begin = int(rng.integers(len(words) - length + 1)), int(rng.integers(len(other) - length + 1))
    inserted = other[begin : begin + length]
    if _plain(inserted) == _plain(words[start : start + length]):
        return None
    return words[:start] + inserted + words[start + length :]


def change_number(words: Words, rng: np.random.Generator, share: float, other: Words) -> Words | None:
    """Replaces a number by another one of the same kind."""
    indices = [index for index, word in enumerate(words) if re.search(r"\d", word) or _bare(word) in _NUMBERS]
    if not indices:
        return None
    index = indices[int(rng.integers(len(indices)))]
    return [*words[:index], _another_number(words[index], rng), *words[index + 1 :]]


def negate(words: Words, rng: np.random.Generator, share: float, other: Words) -> Words | None:
    """Removes a "not", or inserts one after the first auxiliary verb."""
    plain = [_bare(word) for word in words]
    if "not" in plain and len(words) > 1:
        index = plain.index("not")
        return words[:index] + words[index + 1 :]
    indices = [index for index, word in enumerate(plain[:-1]) if word in _AUXILIARIES]
    return [*words[: indices[0] + 1], "not", *words[indices[0] + 1 :]] if indices else None


def _another_number(word: str, rng: np.random.Generator) -> str:
    if digits := [index for index, letter in enumerate(word) if letter.isdigit()]:
        index = digits[int(rng.integers(len(digits)))]
        first = 1 if index == digits[0] and len(digits) > 1 else 0  # no leading zero
        choices = [digit for digit in "0123456789"[first:] if digit != word[index]]
        return word[:index] + str(rng.choice(choices)) + word[index + 1 :]
    bare = _bare(word)
    another = str(rng.choice([other for other in _NUMBERS[bare] if other != bare]))
    return re.sub(bare, another.capitalize() if word[0].isupper() else another, word, flags=re.IGNORECASE)


def _length(words: Words, share: float) -> int:
    """The number of words to perturb: at least one, never all of them."""
    return max(1, min(round(share * len(words)), len(words) - 1))


def _bare(word: str) -> str:
    return re.sub(r"\W", "", word).lower()


def _plain(words: Words) -> Words:
    return [_bare(word) for word in words]


TEXT_PERTURBATIONS: dict[str, TextPerturbation] = {
    perturbation.__name__: perturbation
    for perturbation in (drop_words, repeat_words, swap_words, replace_words, change_number, negate)
}
SINGLE_WORD = ("change_number", "negate")
