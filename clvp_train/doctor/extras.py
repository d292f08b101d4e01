"""What some settings need beyond the package's own libraries."""

from clvp_train.doctor.requirements import install, installed, requirements
from clvp_train.doctor.rows import Row

# extra -> the distribution that tells whether it is there, and what it is for
EXTRAS = {
    "demo": ("gradio", "the demo page"),
    "sweep": ("hydra-optuna-sweeper", "experiment=sweep"),
    "slurm": ("hydra-submitit-launcher", "hydra/launcher=slurm"),
    "s3": ("s3fs", "pairs in s3:// buckets"),
}


def extras() -> list[Row]:
    """One row each; none is a problem."""
    rows = []
    for extra, (name, purpose) in EXTRAS.items():
        version = installed(name)
        needed = {name: ""} if extra == "s3" else requirements(extra)
        rows.append(Row(extra, f"{purpose}: {f'{name} {version}' if version else install(needed)}"))
    return rows
