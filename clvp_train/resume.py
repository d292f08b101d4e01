"""`resume=…` on a command line: which run goes on, from which checkpoint, and with which settings.

It is settled before Hydra reads the command line, since the run folder and the run's own settings follow from it.
"""

import sys
from pathlib import Path

import yaml

from clvp_train.errors import UserError
from clvp_train.places import CHECKPOINTS, MODEL
from clvp_train.training.going_on import newest_whole

OVERRIDES = "config/overrides.yaml"
MORE = ("trainer.max_epochs", "trainer.max_steps")  # what can lengthen a finished run


def with_run(arguments: list[str], runs: Path) -> list[str]:
    """The command line of a run that goes on: its own settings, those that are typed now, its folder and its checkpoint.

    Args:
        arguments: as typed, without the program's name.
        runs: the folder of all runs.

    Returns:
        The same arguments if they ask for nothing to go on, or, with `resume=auto`, if there is nothing.

    Raises:
        UserError: there is no such run, or it is finished.
    """
    typed = {_key(argument): argument for argument in arguments if _is_override(argument)}
    wanted = typed["resume"].split("=", 1)[1] if "resume" in typed else "null"
    if wanted in ("null", ""):
        return arguments
    given = typed["hydra.run.dir"].split("=", 1)[1].strip("'\"") if "hydra.run.dir" in typed else None
    run, named = (_newest(runs, given), None) if wanted == "auto" else _run_of(Path(wanted.strip("'\"")).expanduser())
    if run is None and named is None:
        place = given or f"{runs}/…"
        print(f"resume=auto: {place} holds no unfinished run with a checkpoint; this one begins anew", file=sys.stderr)
        return _replaced(arguments, {"resume"}, ["resume=null"])
    if run is None:
        return arguments  # a checkpoint that lies in no run folder
    if (run / MODEL).exists() and not typed.keys() & set(MORE):
        raise UserError(f"{run} is finished: raise trainer.max_epochs or trainer.max_steps for it to go on")
    checkpoint, damaged = newest_whole(run / CHECKPOINTS, named)
    for path in damaged:
        print(f"warning: {path} is damaged; an earlier checkpoint takes its place", file=sys.stderr)
    if checkpoint is None:
        raise UserError(f"{run} holds no whole checkpoint to go on from: start it anew without resume")
    own = [] if given and not (run / OVERRIDES).exists() else _own_settings(run, set(typed))
    folder, file = (_quoted(path) for path in (run.resolve(), checkpoint.resolve()))
    return _replaced(arguments, {"resume", "hydra.run.dir"}, [*own, f"hydra.run.dir={folder}", f"resume={file}"])


def _newest(runs: Path, given: str | None) -> Path | None:
    """The run folder that is given, or else the newest one; None if it cannot go on."""
    folders = [Path(given)] if given else sorted(runs.glob("*"), key=lambda run: run.stat().st_mtime, reverse=True)
    return next(
        (run for run in folders if any((run / CHECKPOINTS).glob("*.ckpt")) and not (run / MODEL).exists()), None
    )


def _run_of(path: Path) -> tuple[Path | None, Path | None]:
    """A run folder, and the checkpoint if one is named."""
    if path.is_dir():
        return path, None
    if not path.exists():
        raise UserError(f"resume={path} is missing: give auto, a run folder, or a .ckpt of one")
    return (path.parent.parent if path.parent.name == CHECKPOINTS else None), path


def _own_settings(run: Path, typed: set[str]) -> list[str]:
    file = run / OVERRIDES
    try:
        overrides = [str(override) for override in yaml.safe_load(file.read_text()) or ()]
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read ({error}): give a folder that train.py has made") from None
    return [override for override in overrides if _key(override) not in typed | {"resume"}]


def _is_override(argument: str) -> bool:
    return not argument.startswith("-") and "=" in argument


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~")


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "\\'") + "'"


def _replaced(arguments: list[str], keys: set[str], by: list[str]) -> list[str]:
    """The arguments without these overrides, and others in the place of the first, as Hydra takes overrides in one row only."""
    place = next(n for n, argument in enumerate(arguments) if _is_override(argument) and _key(argument) in keys)
    kept = [argument for argument in arguments if not (_is_override(argument) and _key(argument) in keys)]
    place -= sum(1 for argument in arguments[:place] if _is_override(argument) and _key(argument) in keys)
    return [*kept[:place], *by, *kept[place:]]
