"""Step 1: short sentences: everyday English by `grammar.txt` and, for a wider vocabulary, clauses of the King James Bible.

    python sentences.py --work work --bundle ../../data/nano/sentences.txt

Writes `work/sentences_tortoise.txt` (synthesised to train the DVAE and the AR) and the bundled list (to train and test
CLVP). The two share no sentence, so that the nano Tortoise is not trained on any bundled sentence.
Needs Debian's `bible-kjv` (its `bible` command prints the text).
"""

import argparse
import hashlib
import random
import re
import subprocess
from pathlib import Path

WORDS = range(4, 12)
CHARACTERS = range(16, 63)
BIBLE_SHARE = 6  # one sentence in six


def read_grammar(path: Path) -> dict[str, list[str]]:
    """The alternatives of every name of the grammar."""
    slots, patterns = path.read_text().split("\nsentence:\n")
    lines = [line.partition(": ") for line in slots.splitlines() if line and not line.startswith("#")]
    return {name: alternatives.split(" | ") for name, _, alternatives in lines} | {"sentence": patterns.splitlines()}


def everyday_sentence(grammar: dict[str, list[str]], rng: random.Random) -> str:
    def expand(name: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda slot: expand(slot[1]), rng.choice(grammar[name]))

    text = expand("sentence")
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")


def bible_clauses() -> list[str]:
    """Clauses of the Bible, cut at its punctuation."""
    printed = subprocess.run(
        ["bible", "-f", "-l", "100000"], input="gen1:1-rev22:21\n", capture_output=True, text=True, check=True
    ).stdout
    verses = re.findall(r"^\w+?\d+:\d+ (.*)$", printed, flags=re.MULTILINE)
    clauses = []
    for clause in re.split(r"[.;:?!,()\[\]\n]+", "\n".join(verses)):
        text = " ".join(word.capitalize() if word.isupper() and len(word) > 1 else word for word in clause.split())
        if re.fullmatch(r"[A-Za-z' -]+", text):
            clauses.append(text[0].upper() + text[1:] + ".")
    return clauses


def shuffled(texts: list[str]) -> list[str]:
    """The distinct texts of suitable length, in the order of their hashes."""
    fits = {text.lower(): text for text in texts if len(text.split()) in WORDS and len(text) in CHARACTERS}
    return [fits[key] for key in sorted(fits, key=lambda key: hashlib.sha256(key.encode()).digest())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--bundle", type=Path, default=Path("../../data/nano/sentences.txt"))
    parser.add_argument("--num-bundled", type=int, default=15_000)
    parser.add_argument("--num-spoken", type=int, default=22_500)
    args = parser.parse_args()

    grammar, rng = read_grammar(Path(__file__).with_name("grammar.txt")), random.Random(0)
    everyday = shuffled([everyday_sentence(grammar, rng) for _ in range(2 * (args.num_bundled + args.num_spoken))])
    bible = shuffled(bible_clauses())
    mixed = [
        (bible if number % BIBLE_SHARE == 0 else everyday).pop() for number in range(args.num_bundled + args.num_spoken)
    ]
    args.work.mkdir(parents=True, exist_ok=True)
    args.bundle.parent.mkdir(parents=True, exist_ok=True)
    args.bundle.write_text("\n".join(mixed[: args.num_bundled]) + "\n")
    (args.work / "sentences_tortoise.txt").write_text("\n".join(mixed[args.num_bundled :]) + "\n")
    print(f"{args.num_bundled} sentences bundled, {args.num_spoken} to synthesise")


if __name__ == "__main__":
    main()
