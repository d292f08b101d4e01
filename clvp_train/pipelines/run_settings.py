"""What a checkpoint was trained for: evaluation takes it from the settings of its run, unless the command says otherwise.

The settings are in the folder of the model. They set values, and name no code that the command does not trust, see `trust`.
"""

import logging
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from clvp_train.errors import UserError
from clvp_train.hub import TRAINING_CONFIG, read_settings
from clvp_train.io import CHECKPOINTS, MODEL
from clvp_train.io.digests import check_digests
from clvp_train.io.process_rank import rank_and_world_size
from clvp_train.models import resolve_checkpoint
from clvp_train.pipelines.config import validate
from clvp_train.pipelines.trust import CALL, check_targets, override_key

DATA = ("pairs", "corpus", "codes", "data.eval_pairs", "data.val_pairs")  # taken together: codes belong to a corpus
OTHERS = ("tortoise", "split")
log = logging.getLogger(__name__)


def with_run_settings(cfg: DictConfig, checkpoint: str) -> DictConfig:
    """The config with the corpus, codes, pairs, Tortoise and splits that a checkpoint was trained with.

    A group that the command chooses, as in corpus=text, is that of the command, and then no other setting of the data is taken.
    A single setting, as in tortoise.device=cpu, changes what is taken.

    Args:
        cfg: of a command.
        checkpoint: a .ckpt, a folder, a Hub id, or a clvp2.pth.

    Raises:
        UserError: the settings are damaged, invalid, or name code that is not trusted.
    """
    typed = {override_key(override) for override in HydraConfig.get().overrides.task}
    typed |= {key.partition("/")[0] for key in typed}  # codes/judge=… chooses codes
    wanted = [name for name in OTHERS if name not in typed]
    wanted += [name for name in DATA if not typed & set(DATA)]
    file = _settings_file(checkpoint)
    if file is not None:
        check_digests(file.parent, file.name)
    settings = OmegaConf.create(read_settings(file) if file is not None else {})
    taken = [name for name in wanted if name.partition(".")[0] in settings]
    if file is None or not taken:
        if rank_and_world_size()[0] == 0 and "corpus" in wanted:
            log.warning("checkpoint=%s: has no %s; evaluating on %s", checkpoint, TRAINING_CONFIG, describe(cfg.corpus))
        return cfg
    changed = cfg.copy()
    with open_dict(changed):
        for name in taken:
            OmegaConf.update(changed, name, _plain(settings, name), merge=False)
            for key in typed:
                if key.startswith(f"{name}."):
                    OmegaConf.update(changed, key, OmegaConf.select(cfg, key), force_add=True)
    if not cfg.trust_run_folder:
        called = CALL.search(str([_plain(settings, name) for name in taken]))
        if called is not None:
            raise UserError(f"{file}: calls a resolver: {called[0]}. If you trust it, add trust_run_folder=true.")
        check_targets(changed, cfg, f"{file}: the settings")
    validate(changed)
    if rank_and_world_size()[0] == 0:
        values = {name: _plain(settings, name) for name in taken}
        described = (f"{name}={describe(value)}" for name, value in values.items() if value is not None)
        log.info("taken from %s: %s", file, ", ".join(described))
    return changed


def describe(node: Any) -> str:
    """The class and the location of a config node, of each in a list or group of them; values of others."""
    node = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    if isinstance(node, list):
        return "[" + ", ".join(map(describe, node)) + "]"
    if not isinstance(node, dict):
        return "null" if node is None else str(node)
    if "_target_" not in node:
        return "{" + ", ".join(f"{key}: {describe(child)}" for key, child in node.items()) + "}"
    location = next((f" {node[key]}" for key in ("path", "root", "name", "name_or_path", "folder") if key in node), "")
    return str(node["_target_"]).rpartition("clvp_train.")[2] + location.replace("${paths.data}", "data")


def _plain(settings: DictConfig, name: str) -> Any:
    """A setting with its interpolations as they are written."""
    group, _, key = name.partition(".")
    node = OmegaConf.to_container(settings, resolve=False)[group]  # type: ignore[index,call-overload]
    return node.get(key) if key else node


def _settings_file(checkpoint: str) -> Path | None:
    """The file with the settings of the run that a checkpoint is from; None if there is none."""
    try:
        path = resolve_checkpoint(checkpoint)
    except UserError:
        return None  # reported when it is loaded
    folder = path.parent.parent / MODEL if path.parent.name == CHECKPOINTS else path if path.is_dir() else path.parent
    return file if (file := folder / TRAINING_CONFIG).is_file() else None
