"""`resume=…`: which run is resumed, from which checkpoint, and with which settings.

It is resolved inside the run, after Hydra has composed the config, so that it works from the command line, from an experiment
file, with a `hydra.run.dir` of any origin, and per job under --multirun.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from clvp_train.errors import UserError
from clvp_train.io import CHECKPOINTS, FINISHED, MODEL, is_abandoned, is_locked, locked, write_text
from clvp_train.io.digests import is_intact_archive, read_sealed_json, sealed_json
from clvp_train.io.process_rank import rank_and_world_size
from clvp_train.pipelines.command import advising
from clvp_train.pipelines.config import validate
from clvp_train.pipelines.launch import RANKS
from clvp_train.pipelines.paths import expand_paths
from clvp_train.pipelines.trust import OWN, check_overrides, check_targets, override_key
from clvp_train.training.checkpointing import LAST, RUN_KEY, newest_complete, read_checkpoint, resume_hint

OVERRIDES = "config/overrides.yaml"  # Hydra's, in a run folder
REMOVED = ("training.chunk_size",)  # settings of earlier versions that changed no result
LENGTH = ("trainer.max_epochs", "trainer.max_steps")  # what extends a finished run
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """How a training starts: from scratch, or as a run that resumes, with `cfg.resume` set to its checkpoint."""

    cfg: DictConfig  # `paths.output` is the run folder
    overrides: list[str]  # that `cfg` is composed of, to be stored in checkpoints
    is_finished: bool = False

    @property
    def folder(self) -> Path:
        return Path(self.cfg.paths.output)


def resolve_resume(cfg: DictConfig) -> Start:
    """Finds the run to be resumed. Its config holds its own settings, changed by those of this command.

    Writes nothing. If there is nothing to resume, the config is as given.

    Raises:
        UserError: there is no such run, it holds no intact checkpoint, or a new run would replace one.
    """
    given = {override_key(override): override for override in HydraConfig.get().overrides.task}
    typed = {key: override for key, override in given.items() if key not in OWN}
    run, named = _find_run(cfg)
    if run is None:
        return _from_scratch(cfg, list(typed.values()), named)
    is_finished = _is_finished(run)
    if is_finished and not typed.keys() & set(LENGTH):
        return _finished_run(cfg, run)
    start = _resumed(cfg, run, _intact_checkpoint(run, named), typed)
    if is_finished and _read_mark(run).get("length") == _length(start.cfg):  # the length that was typed is what it has
        return _finished_run(cfg, run)
    return start


def _find_run(cfg: DictConfig) -> tuple[Path | None, Path | None]:
    """The run folder that `cfg.resume` means and the checkpoint that it names, if any."""
    if cfg.resume == "auto":
        return _newest_unfinished(Path(cfg.paths.output)), None
    return _run_of(Path(cfg.resume)) if cfg.resume else (None, None)


def _resumed(cfg: DictConfig, run: Path, checkpoint: Path, typed: dict[str, str]) -> Start:
    """A run that resumes from a checkpoint: its own settings are composed again, with those that were typed now."""
    stored = _own_overrides(run, checkpoint)
    check_overrides(stored, run, cfg.trust_run_folder)
    replaced = typed.keys() | {*OWN, *REMOVED}
    overrides = [override for override in stored if override_key(override) not in replaced] + [*typed.values()]
    resumed = hydra.compose(HydraConfig.get().job.config_name, overrides)
    expand_paths(resumed)
    with open_dict(resumed):
        resumed.resume, resumed.paths.output = str(checkpoint.resolve()), str(run.resolve())
    if not cfg.trust_run_folder:
        # after all changes, which interpolations may depend on
        check_targets(resumed, cfg, f"resume={run}: the overrides of the run")
    validate(resumed)
    return Start(resumed, overrides)


@contextmanager
def open_run(start: Start) -> Iterator[None]:
    """Prepares the run folder, and holds its lock during the block. A signal ends the block and says how to resume.

    Raises:
        UserError: another process trains in the folder.
    """
    output, run = Path(HydraConfig.get().runtime.output_dir), start.folder
    # ranks are started by a process that holds the lock, or by torchrun or srun
    is_first = rank_and_world_size()[0] == 0 and RANKS not in os.environ
    with advising(lambda: resume_hint(run), start.cfg), locked(run) if is_first else nullcontext():
        if is_first:
            for path in filter(lambda path: is_abandoned(path.name), run.rglob(".*.partial")):
                path.unlink(missing_ok=True)
        if holds_run(run):
            _move_log(output, run)
        yield


def reopen(start: Start) -> None:
    """Stores the settings with which a run resumes, once they are accepted. The run no longer counts as finished."""
    if rank_and_world_size()[0] == 0:
        (start.folder / FINISHED).unlink(missing_ok=True)
        write_text(start.folder / OVERRIDES, yaml.safe_dump(start.overrides, allow_unicode=True))
        write_text(start.folder / "config/config.yaml", OmegaConf.to_yaml(start.cfg))


def report_finished(start: Start) -> float | None:
    """Says that a run is finished; returns its best value of the primary metric."""
    run = start.folder
    _move_log(Path(HydraConfig.get().runtime.output_dir), run)
    names = [os.path.relpath(path) for path in (run, run / MODEL)]
    if rank_and_world_size()[0] == 0:
        log.info("resume=%s: the run is finished, its model is in %s. Raise %s or %s to extend it.", *names, *LENGTH)
    return _read_mark(run).get("score")


def holds_run(folder: Path) -> bool:
    """Whether a folder holds what a training has written."""
    return any((folder / CHECKPOINTS).glob("*.ckpt")) or (folder / FINISHED).exists() or (folder / MODEL).exists()


def _read_mark(run: Path) -> dict[str, Any]:
    """What `write_mark` has stored; {} for a run that is not finished or of an earlier version, and for a damaged file."""
    try:
        return read_sealed_json((run / FINISHED).read_bytes())
    except (OSError, ValueError):
        return {}


def write_mark(cfg: DictConfig, score: float | None) -> None:
    """Marks a run as finished: its model, report and publication are complete.

    Args:
        cfg: of the run.
        score: its best value of the primary metric.
    """
    write_text(Path(cfg.paths.output, FINISHED), sealed_json({"length": _length(cfg), "score": score}) + "\n")


def _length(cfg: DictConfig) -> list[Any]:
    return [OmegaConf.select(cfg, key) for key in LENGTH]


def _from_scratch(cfg: DictConfig, overrides: list[str], named: Path | None) -> Start:
    """A new run, from a checkpoint outside of a run folder if `named` is set."""
    output = Path(cfg.paths.output)
    if holds_run(output):
        path = os.path.relpath(output)
        raise UserError(f"hydra.run.dir={path}: holds a run. Resume it with resume={path}, or choose another folder.")
    if named is not None:
        read_checkpoint(named)
    elif cfg.resume:
        log.warning("resume=auto: no unfinished run with a checkpoint found; starting from scratch")
    with open_dict(cfg):
        cfg.resume = str(named) if named else None
    return Start(cfg, overrides)


def _finished_run(cfg: DictConfig, run: Path) -> Start:
    with open_dict(cfg):
        cfg.paths.output = str(run.resolve())
    return Start(cfg, [], is_finished=True)


def _is_finished(run: Path) -> bool:
    if (run / FINISHED).exists() or not (run / MODEL).exists():
        return (run / FINISHED).exists()
    try:  # earlier versions wrote no mark, and the model at the end
        return "has_mark" not in read_checkpoint(run / CHECKPOINTS / LAST)[RUN_KEY]
    except UserError:
        return True


def _newest_unfinished(output: Path) -> Path | None:
    """This run's folder if it holds a run; otherwise the newest unfinished run next to it that is not under way, where folders
    are named by date: a folder with a fixed name belongs to one run."""
    config = HydraConfig.get()
    folder = OmegaConf.to_container(config, resolve=False)["run"]["dir"]  # type: ignore[index,call-overload]
    if holds_run(output) or config.mode != RunMode.RUN or "${now:" not in folder:
        return output if holds_run(output) else None
    folders = sorted(output.parent.glob("*"), key=lambda run: run.stat().st_mtime, reverse=True)
    candidates = (run for run in folders if any((run / CHECKPOINTS).glob("*.ckpt")))
    return next((run for run in candidates if not _is_finished(run) and not is_locked(run)), None)


def _run_of(path: Path) -> tuple[Path | None, Path | None]:
    """The run folder of a path, and the checkpoint if the path names one. A checkpoint outside of a run folder has none."""
    if path.is_dir():
        return path, None
    if not path.exists():
        raise UserError(f"resume={path}: not found. Set it to auto, a run folder, or a .ckpt.")
    if path.parent.name == CHECKPOINTS:
        return path.parent.parent, path
    if not is_intact_archive(path):
        raise UserError(f"resume={path}: corrupt or not a checkpoint. Set it to another one, or to a run folder.")
    return None, path


def _intact_checkpoint(run: Path, named: Path | None) -> Path:
    checkpoint, damaged = newest_complete(run / CHECKPOINTS, named)
    for path in damaged:
        log.warning("%s is damaged; resuming from an earlier checkpoint", path)
    if checkpoint is None:
        raise UserError(f"resume={run}: no intact checkpoint. Start a new run in another folder.")
    return checkpoint


def _own_overrides(run: Path, checkpoint: Path) -> list[str]:
    """The overrides that a run was started with: from its checkpoint, because Hydra rewrites its own file when another run
    starts in the same folder."""
    stored = read_checkpoint(checkpoint)[RUN_KEY]
    if isinstance(stored.get("overrides"), list):
        return list(map(str, stored["overrides"]))
    try:  # a checkpoint of an earlier version
        return [str(override) for override in yaml.safe_load((run / OVERRIDES).read_text(encoding="utf-8")) or ()]
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise UserError(
            f"{run / OVERRIDES}: cannot be read ({error}). Set resume to a run folder of train.py."
        ) from None


def _move_log(output: Path, run: Path) -> None:
    """Continues the run's log file, and removes the folder that Hydra has just made for this command, if it is another one."""
    if run.resolve().samefile(output):
        return
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == output.resolve():
            handler.close()
            handler.baseFilename = str(run.resolve() / Path(handler.baseFilename).name)
    if rank_and_world_size()[1] == 1 and os.path.samefile(output.parent, run.parent):
        shutil.rmtree(output, ignore_errors=True)
