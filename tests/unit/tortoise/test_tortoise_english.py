"""What a text becomes before it is tokenized; `tests/parity` compares it with tortoise-tts over thousands of texts."""

import pytest

from clvp_train.tortoise.tokenizer import TortoiseNormalizer


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Don’t — “naïve” Straße…", "don't -- naive strasse..."),
        ("1066, 1900, 1905, 1984, 2000, 2007, 2020", "ten sixty-six, nineteen hundred, nineteen oh five, nineteen eighty-four, two thousand, two thousand seven, twenty twenty"),
        ("3025 and 3125", "three thousand twenty-five and three thousand, one hundred twenty-five"),
        ("1,000,007", "one million seven"),
        ("1st 5th 12th 20th 101st 1100th", "first fifth twelfth twentieth one hundred and first one thousand, one hundredth"),
        ("$5.50, $1, 3.14", "five dollars, fifty cents, one dollar, three point fourteen"),
        ("Dr. Smith\n of St.  Ives", "doctor smith of saint ives"),
        ("Привет", ""),
    ],
)  # fmt: skip
def test_a_text_is_spelt_out(written, spoken):
    assert TortoiseNormalizer()(written) == spoken
