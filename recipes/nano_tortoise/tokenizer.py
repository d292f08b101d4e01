"""Step 5: a byte-pair tokenizer of 256 entries in the format of transformers' `ClvpTokenizer`.

    python tokenizer.py --work work

Writes `work/tortoise/vocab.json`, `merges.txt` and `tokenizer_config.json`. Ids as in Tortoise: 0 [STOP], 1 [UNK], 2
[SPACE], 255 reserved for the AR's start of text.
"""

import argparse
import json
import string
from collections import Counter
from pathlib import Path

from transformers import ClvpTokenizer

SPECIAL = ["[STOP]", "[UNK]", "[SPACE]"]
CHARACTERS = [*string.ascii_lowercase, *"!\"'(),-./:;?"]
SIZE = 255


def learn_merges(words: Counter[tuple[str, ...]], count: int) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al. 2016) within words: a space is a separate token, as in Tortoise."""
    merges = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += times
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for word, times in words.items():
            symbols, index = [], 0
            while index < len(word):
                step = 2 if word[index : index + 2] == best else 1
                symbols.append("".join(word[index : index + step]))
                index += step
            merged[tuple(symbols)] += times
        words = merged
    return merges


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    args = parser.parse_args()

    folder = args.work / "tortoise"
    folder.mkdir(parents=True, exist_ok=True)
    text = (args.work / "sentences_tortoise.txt").read_text().lower()
    words = Counter(tuple(word) for word in "".join(c if c.isalpha() else " " for c in text).split())
    merges = learn_merges(words, SIZE - len(SPECIAL) - len(CHARACTERS))
    vocabulary = [*SPECIAL, *CHARACTERS, *("".join(pair) for pair in merges)]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    tokenizer = ClvpTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.add_bpe_version_header = True  # without it the first merge is lost when the file is read again
    tokenizer.save_pretrained(folder)
    for line in text.splitlines()[:3]:
        print(tokenizer.convert_ids_to_tokens(tokenizer(line)["input_ids"]))


if __name__ == "__main__":
    main()
