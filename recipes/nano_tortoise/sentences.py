"""Step 1: short public-domain sentences, cut from the King James Bible.

    python sentences.py --work work --bundle ../../data/nano/sentences.txt

Writes `work/sentences_tortoise.txt` (synthesised to train the DVAE and the AR) and the bundled list (to train and test
CLVP). The two share no sentence, so that the nano Tortoise is not trained on any bundled sentence.
Needs Debian's `bible-kjv` (its `bible` command prints the text).
"""

import argparse
import hashlib
import re
import subprocess
from pathlib import Path

WORDS = range(4, 12)
CHARACTERS = range(16, 61)


def verses() -> list[str]:
    """The text of every verse, in order, without its reference."""
    printed = subprocess.run(
        ["bible", "-f", "-l", "100000"], input="gen1:1-rev22:21\n", capture_output=True, text=True, check=True
    ).stdout
    return re.findall(r"^\w+?\d+:\d+ (.*)$", printed, flags=re.MULTILINE)


def clauses(verse: str) -> list[str]:
    """Cuts a verse at its punctuation into sentences of `WORDS` words."""
    found = []
    for clause in re.split(r"[.;:?!,()\[\]]+", verse):
        words = [word.capitalize() if word.isupper() and len(word) > 1 else word for word in clause.split()]
        text = " ".join(words)
        if len(words) in WORDS and len(text) in CHARACTERS and re.fullmatch(r"[A-Za-z' -]+", text):
            found.append(text[0].upper() + text[1:] + ".")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--bundle", type=Path, default=Path("../../data/nano/sentences.txt"))
    parser.add_argument("--num-bundled", type=int, default=12_000)
    parser.add_argument("--num-spoken", type=int, default=20_000)
    args = parser.parse_args()

    distinct = {text.lower(): text for verse in verses() for text in clauses(verse)}
    shuffled = sorted(distinct.values(), key=lambda text: hashlib.sha256(text.lower().encode()).digest())
    if len(shuffled) < args.num_bundled + args.num_spoken:
        raise SystemExit(f"only {len(shuffled)} sentences available. Lower --num-bundled or --num-spoken")
    args.work.mkdir(parents=True, exist_ok=True)
    args.bundle.parent.mkdir(parents=True, exist_ok=True)
    args.bundle.write_text("\n".join(shuffled[: args.num_bundled]) + "\n")
    spoken = shuffled[args.num_bundled : args.num_bundled + args.num_spoken]
    (args.work / "sentences_tortoise.txt").write_text("\n".join(spoken) + "\n")
    print(f"{len(shuffled)} sentences found, {args.num_bundled} bundled, {len(spoken)} to synthesise")


if __name__ == "__main__":
    main()
