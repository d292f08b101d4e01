"""What a checkpoint was trained for: evaluation takes it from the settings of its run, unless the command says otherwise.

The settings are in the folder of the model. They set values, and name no code that the command does not trust, see `trust`.
"""

import logging
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from clvp_train.errors import UserError
from clvp_train.hub import TRAINING_CONFIG, describe, read_settings, settings_file
from clvp_train.io.digests import check_digests
from clvp_train.io.process_rank import rank_and_world_size
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
    file = settings_file(checkpoint)
    if file is not None:
        check_digests(file.parent, file.name)
    taken = _select(read_settings(file), wanted)
    is_first = rank_and_world_size()[0] == 0
    if not taken:
        if is_first and "corpus" in wanted:
            corpus = describe(OmegaConf.to_container(cfg.corpus))
            log.warning("checkpoint=%s: has no %s; evaluating on %s", checkpoint, TRAINING_CONFIG, corpus)
        return cfg
    changed = _updated(cfg, taken, typed)
    if not cfg.trust_run_folder:
        called = CALL.search(str(list(taken.values())))
        if called is not None:
            raise UserError(f"{file}: calls a resolver: {called[0]}. If you trust it, add trust_run_folder=true.")
        check_targets(changed, cfg, f"{file}: the settings")
    validate(changed)
    if is_first:
        described = (f"{name}={describe(value)}" for name, value in taken.items() if value is not None)
        log.info("taken from %s: %s", file, ", ".join(described))
    return changed


def _select(settings: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Those of the named settings whose group is there, such as "data" of "data.val_pairs"."""
    selected = {}
    for name in names:
        group, _, key = name.partition(".")
        if group in settings:
            selected[name] = settings[group].get(key) if key else settings[group]
    return selected


def _updated(cfg: DictConfig, taken: dict[str, Any], typed: set[str]) -> DictConfig:
    """The config with what is taken, except for single settings that the user has typed."""
    changed = cfg.copy()
    with open_dict(changed):
        for name, value in taken.items():
            OmegaConf.update(changed, name, value, merge=False)
            for key in typed:
                if key.startswith(f"{name}."):
                    OmegaConf.update(changed, key, OmegaConf.select(cfg, key), force_add=True)
    return changed
