"""Where the folders lie that come with the package, in a clone or inside a wheel; names in the folder of a run."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
DATA = PACKAGE / "bundled" if (PACKAGE / "bundled").is_dir() else PACKAGE.parent / "data"
MODEL, REPORT, CHECKPOINTS = "model", "report", "checkpoints"  # in a run folder
