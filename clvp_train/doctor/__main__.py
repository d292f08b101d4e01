"""`python -m clvp_train.doctor`"""

import sys

from clvp_train.doctor.devices import devices
from clvp_train.doctor.extras import extras
from clvp_train.doctor.loading import load
from clvp_train.doctor.logins import logins
from clvp_train.doctor.paths import caches, places
from clvp_train.doctor.rows import lines
from clvp_train.doctor.versions import COMMANDS, MODULES, versions


def main() -> int:
    """Prints what it finds. Returns the exit status: 0 if all that training needs is there, otherwise 1."""
    loaded = load([*MODULES.values(), "devices", COMMANDS])
    sections = {
        "Versions": versions(loaded),
        "Devices": devices(loaded["devices"]),
        "Places": [*places(), *caches()],
        "Logins": logins(),
        "Extras": extras(),
    }
    wrong = [row.name for rows in sections.values() for row in rows if row.mend]
    print("\n".join(lines(sections)))
    print(f"\nTo mend: {', '.join(wrong)}" if wrong else "\nAll that training needs is there.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
