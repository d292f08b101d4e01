"""Token ids of tortoise-tts 3.0.0 against ours, which come from transformers' tokenizer with tortoise-tts' vocabulary."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clvp_train.tortoise.tokenizer import read_original_tokenizer

pytestmark = pytest.mark.tortoise
NANO = Path(__file__).parents[2] / "data" / "nano"
NUMBERS = [*range(0, 3200), 9001, 9010, 10_000, 12_345, 100_007, 101_000, 548_977_048, 10**9, 6_450_042_198_180_356]
NUMBERS += [10**18, 12_345_678_901_234_567_890, 2**64, 10**20 + 7, 7 * 10**33 + 12_000, 10**36 - 1]
TEXTS = [
    "In 1984, Dr. Smith paid $5.50 for 2 apples — “naïve”!",
    "Don’t ‘quote’ me… it’s 5–6 o’clock, isn't it?",
    "'Tis the night; 'twas o'death, they'll've said: 'sblood!",
    "Mrs. and Mr. Jones, St. Co. Jr. Maj. Gen. Drs. Rev. Lt. Hon. Sgt. Capt. Esq. Ltd. Col. Ft. dr. MR.",
    "$1 $0.01 $1.01 $2.02 $0 $.50 $1.2.3 £5 €7 1,000,000 3.14159 007 1e5 50% #1 A4 4x4",
    "Café, façade, Zürich, Ærøskøbing, Łódź, Straße, señor, ¿qué?, œuvre, ﬁn",
    "under_score [SPACE] [STOP] [UNK] <tag> a@b.c http://x.y/z?q=1&r=2 C++ \\ ^ ~ ` | {} = +",
    "  two  spaces\tand\na line\u00a0end  ",
    '"Quoted," said he: "It\'s ½ of 20° × 3², №7."',
    "",
    " ",
]
# tortoise-tts transliterates all scripts; this package drops others than Latin
DIFFERENT = ["Привет", "日本", "→", "₹5"]


@pytest.fixture(scope="module")
def theirs(tortoise_source) -> Callable[[str], list[int]]:
    from tortoise.utils.tokenizer import VoiceBpeTokenizer

    return VoiceBpeTokenizer(str(tortoise_source / "tortoise" / "data" / "tokenizer.json")).encode


@pytest.fixture(scope="module")
def ours(tortoise_source) -> Callable[[str], list[int]]:
    tokenizer = read_original_tokenizer(tortoise_source / "tortoise" / "data" / "tokenizer.json")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.vocab_size) == (255, 0, 255)
    return lambda text: tokenizer(text)["input_ids"]


def test_all_bundled_sentences(theirs, ours):
    sentences = (NANO / "sentences.txt").read_text().splitlines()
    assert len(sentences) > 10_000
    assert [text for text in sentences if ours(text) != theirs(text)] == []


@pytest.mark.parametrize("text", TEXTS)
def test_difficult_texts(theirs, ours, text):
    assert ours(text) == theirs(text)


@pytest.mark.parametrize("form", ["{}", "{:,}", "{}th", "{}st", "the {}nd.", "${}.25", "{}.5", "£{}"])
def test_numbers(theirs, ours, form):
    texts = [form.format(number) for number in NUMBERS]
    assert [text for text in texts if ours(text) != theirs(text)] == []


@pytest.mark.parametrize("text", DIFFERENT)
def test_known_differences(theirs, ours, text):
    assert ours(text) != theirs(text)
