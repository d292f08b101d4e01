"""Where the folders lie that come with the package: at the root of a clone, inside the package of a wheel."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
DATA = PACKAGE / "bundled" if (PACKAGE / "bundled").is_dir() else PACKAGE.parent / "data"
