"""`resume=…`: which run is resumed, from which checkpoint, and with which settings.

It is resolved inside the run, after Hydra has composed the config, so that it works from the command line, from an experiment
file, with a `hydra.run.dir` of any origin, and per job under --multirun.
"""

import logging
import os
import shutil
from pathlib import Path

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from clvp_train.errors import UserError
from clvp_train.io import CHECKPOINTS, MODEL, write_text
from clvp_train.io.process_rank import rank_and_world_size
from clvp_train.pipelines.config import validate
from clvp_train.training.checkpointing import RUN_KEY, newest_complete, read_checkpoint

OVERRIDES = "config/overrides.yaml"  # Hydra's, in a run folder
LENGTH = ("trainer.max_epochs", "trainer.max_steps")  # what extends a finished run
log = logging.getLogger(__name__)


def resolve_resume(cfg: DictConfig) -> tuple[DictConfig, list[str]]:
    """The config of the run to be resumed, and the overrides that it is composed of, to be stored in its checkpoints.

    The config holds the run's own settings, changed by those of this command, with `resume` set to the checkpoint and
    `paths.output` to the run folder. If there is nothing to resume, it is the config as given.

    Raises:
        UserError: there is no such run, it is finished, or it holds no intact checkpoint.
    """
    if not cfg.resume:
        return cfg, list(HydraConfig.get().overrides.task)
    typed = {_key(override): override for override in HydraConfig.get().overrides.task}
    output = Path(cfg.paths.output)
    run, named = (
        (_newest_unfinished(output), None) if cfg.resume == "auto" else _run_of(Path(str(cfg.resume)).expanduser())
    )
    if run is None:
        if named is None:
            log.warning("resume=auto: no unfinished run with a checkpoint found; starting from scratch")
        with open_dict(cfg):
            cfg.resume = str(named) if named else None
        return cfg, [override for key, override in typed.items() if key != "resume"]
    if (run / MODEL).exists() and not typed.keys() & set(LENGTH):
        raise UserError(
            f"resume={run}: the run is finished. Raise trainer.max_epochs or trainer.max_steps to extend it."
        )
    checkpoint = _intact_checkpoint(run, named)
    own = [override for override in _own_overrides(run, checkpoint) if _key(override) not in typed.keys() | {"resume"}]
    overrides = [*own, *(override for key, override in typed.items() if key != "resume")]
    resumed = hydra.compose(HydraConfig.get().job.config_name, overrides)
    validate(resumed)
    with open_dict(resumed):
        resumed.resume, resumed.paths.output = str(checkpoint.resolve()), str(run.resolve())
    if rank_and_world_size()[0] == 0:
        write_text(run / OVERRIDES, yaml.safe_dump(overrides, allow_unicode=True))
        write_text(run / "config/config.yaml", OmegaConf.to_yaml(resumed))
    if not run.resolve().samefile(output):
        _move_log(output, run)
    return resumed, overrides


def _newest_unfinished(output: Path) -> Path | None:
    """This run's folder if it holds a checkpoint; otherwise the newest unfinished run next to it, where folders are named by
    date: a folder with a fixed name belongs to one run."""
    config = HydraConfig.get()
    folder = OmegaConf.to_container(config, resolve=False)["run"]["dir"]  # type: ignore[index,call-overload]
    by_date = config.mode == RunMode.RUN and "${now:" in folder
    folders = (
        sorted(output.parent.glob("*"), key=lambda run: run.stat().st_mtime, reverse=True) if by_date else [output]
    )
    unfinished = (run for run in folders if any((run / CHECKPOINTS).glob("*.ckpt")) and not (run / MODEL).exists())
    return next(unfinished, None)


def _run_of(path: Path) -> tuple[Path | None, Path | None]:
    """The run folder of a path, and the checkpoint if the path names one. A checkpoint outside of a run folder has none."""
    if path.is_dir():
        return path, None
    if not path.exists():
        raise UserError(f"resume={path}: not found. Give auto, a run folder, or a .ckpt.")
    return (path.parent.parent if path.parent.name == CHECKPOINTS else None), path


def _intact_checkpoint(run: Path, named: Path | None) -> Path:
    checkpoint, damaged = newest_complete(run / CHECKPOINTS, named)
    for path in damaged:
        log.warning("%s is damaged; resuming from an earlier checkpoint", path)
    if checkpoint is None:
        raise UserError(f"resume={run}: no intact checkpoint. Start from scratch without resume.")
    return checkpoint


def _own_overrides(run: Path, checkpoint: Path) -> list[str]:
    """The overrides that a run was started with: from its checkpoint, because Hydra rewrites its own file when another run
    starts in the same folder."""
    stored = read_checkpoint(checkpoint)[RUN_KEY]
    if "overrides" in stored:
        return stored["overrides"]
    try:  # a checkpoint of an earlier version
        return [str(override) for override in yaml.safe_load((run / OVERRIDES).read_text()) or ()]
    except (OSError, yaml.YAMLError) as error:
        raise UserError(
            f"{run / OVERRIDES}: cannot be read ({error}). Give a folder that train.py has written."
        ) from None


def _move_log(output: Path, run: Path) -> None:
    """Continues the run's log file, and removes the folder that Hydra has just made for this command."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == output.resolve():
            handler.close()
            handler.baseFilename = str(run.resolve() / Path(handler.baseFilename).name)
    if rank_and_world_size()[1] == 1 and os.path.samefile(output.parent, run.parent):
        shutil.rmtree(output, ignore_errors=True)


def _key(override: str) -> str:
    return OverridesParser.create().parse_override(override).key_or_group
