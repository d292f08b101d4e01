"""Damaged and hostile files: `python -m tests.drills.files --flips 400` prints two tables.

The first: single bits are flipped in every kind of file that the package writes and reads, see `kinds`, which is then opened by
the functions that the commands use. Not covered, because nothing records what they contained: README.md and other files that
users edit; their own texts, recordings and Parquet files; tokenizer.json of tortoise-tts; the log metrics.csv. The second table
is that of `hostile`.
"""

import argparse
import random
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from clvp_train.errors import UserError
from tests.drills.hostile import hostile_rows
from tests.drills.kinds import Kind, make_kinds

COLUMNS = ("flips", "refused", "harmless", "silent", "tracebacks")
HEAD = f"| kind of file | {' | '.join(COLUMNS)} |"
EDGE = 512  # bytes at both ends of a file, where headers are


def rows(flips: int, seed: int) -> list[str]:
    """A row for each kind of file, and one of all.

    Refused: an error of one line, or the documented fallback, such as an earlier checkpoint. Harmless: what was read equals what
    was written. Silent: it was read as something else.

    Args:
        flips: at least so many, spread over all kinds.
        seed: of files, positions and bits.
    """
    draw, lines, total = random.Random(seed), [], Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        kinds = make_kinds(Path(folder))
        for kind in kinds:
            counts, expected = Counter[str](), repr(kind.read())
            for _ in range(-(-flips // len(kinds))):
                file = draw.choice(kind.files)
                content, position = file.read_bytes(), _position(file.stat().st_size, draw)
                damaged = bytearray(content)
                damaged[position] ^= 1 << draw.randrange(8)
                file.write_bytes(damaged)
                result = _outcome(kind, expected)
                file.write_bytes(content)
                counts.update(["flips", result])
                if result in ("silent", "tracebacks"):
                    print(f"{kind.name}: {file.relative_to(folder)}, byte {position} is {damaged[position]}: {result}")
            lines.append(_row(kind.name, counts))
            total += counts
    return [*lines, _row("**all**", total)]


def _position(size: int, draw: random.Random) -> int:
    """Anywhere in the file, or as often at its ends."""
    edge = draw.randrange(min(EDGE, size))
    return draw.choice((draw.randrange(size), draw.randrange(size), edge, size - 1 - edge))


def _outcome(kind: Kind, expected: str) -> str:
    try:
        found = repr(kind.read())
    except UserError:
        return "refused"
    except Exception:
        traceback.print_exc()
        return "tracebacks"
    return "harmless" if found == expected else "silent"


def _row(name: str, counts: Counter[str]) -> str:
    return f"| {name} | {' | '.join(str(counts[column]) for column in COLUMNS)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=400, help="over all kinds of files")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    flips, hostile = rows(settings.flips, settings.seed), hostile_rows()
    print("\n".join([HEAD, *flips, "", *hostile]))


if __name__ == "__main__":
    main()
