"""Checks the installation: `python -m clvp_train.doctor` or `clvp-doctor`."""

import argparse
import sys

from clvp_train.doctor.environment import caches, devices, logins, paths
from clvp_train.doctor.loading import DEVICES, load
from clvp_train.doctor.rows import format_sections
from clvp_train.doctor.versions import MODULES, PIPELINE, extras, versions
from clvp_train.io.output import tolerate_output


def main() -> int:
    """Prints the results. Returns the exit status: 0 if everything that training needs is available, otherwise 1."""
    argparse.ArgumentParser(
        prog="clvp-doctor", description="Checks the installation and says how to fix it."
    ).parse_args()
    tolerate_output()
    loaded = load([*MODULES.values(), DEVICES, PIPELINE])
    sections = {
        "Versions": versions(loaded),
        "Devices": devices(loaded[DEVICES]),
        "Paths": [*paths(), *caches()],
        "Logins": logins(),
        "Extras": extras(),
    }
    problems = [row.name for rows in sections.values() for row in rows if row.fix]
    print("\n".join(format_sections(sections)))
    print(f"\nTo fix: {', '.join(problems)}" if problems else "\nEverything that training needs is available.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
