"""What a run folder that somebody else has sent may decide: it sets values, but it names no code and no options of Hydra.

`instantiate` calls whatever a `_target_` names. The targets that this package's configs, the user's own (`--config-dir`), and
the command line name are trusted; others, which only the overrides of the run name, need `trust_run_folder=true`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigSource
from omegaconf import DictConfig, OmegaConf

from clvp_train.errors import UserError

CALL = re.compile(r"\$\{[^}]*[:$]")  # ${resolver:…}, or an interpolation in the name of another
OWN = ("resume", "trust_run_folder")  # settings of a command, not of the run


def override_key(override: str) -> str:
    """The setting or group that an override changes. Raises UserError if the parser cannot read it."""
    try:
        return OverridesParser.create().parse_override(override).key_or_group
    except (HydraException, ValueError, RecursionError) as error:  # ValueError: a number of more than 4300 digits
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"overrides: {override[:80]!r} cannot be read ({reason[:80]}). Remove it from the overrides of the run."
        ) from None


def check_overrides(overrides: list[str], run: Path, is_trusted: bool) -> None:
    """Raises UserError if the overrides of a run contain an option such as --config-dir, or a setting of Hydra; or, unless the
    run is trusted, an interpolation that calls a resolver, whose value may change after `check_targets`."""
    for override in overrides:
        if not is_trusted and CALL.search(override):
            raise UserError(
                f"resume={run}: the overrides of the run call a resolver: {override!r}. If you trust the folder, add "
                "trust_run_folder=true."
            )
        if override.startswith("-") or override_key(override).startswith("hydra"):
            raise UserError(
                f"resume={run}: the overrides of the run contain {override!r}, which is not a setting of a run. Remove it from "
                "config/overrides.yaml, and add it to the command if you want it."
            )


def check_targets(changed: DictConfig, cfg: DictConfig, origin: str) -> None:
    """Raises UserError if a config names code that only a run folder names.

    Args:
        changed: the config with the settings of the run.
        cfg: composed from the command line alone.
        origin: what names the code, for the message.
    """
    trusted = {target for _, target in _targets(OmegaConf.to_container(cfg, resolve=True))}
    unknown = [item for item in _targets(OmegaConf.to_container(changed, resolve=True)) if item[1] not in trusted]
    if not unknown:
        return
    for source in GlobalHydra.instance().config_loader().get_sources():
        if source.provider != "hydra":
            trusted |= set(_targets_of_source(source))
    for key, target in unknown:
        if target not in trusted:
            raise UserError(
                f"{origin} name code: {key}={target}. If you trust the folder, add "
                "trust_run_folder=true; or repeat this override in the command."
            )


def _targets(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each `_target_` in a container, with its full name."""
    if isinstance(node, dict) and node.get("_target_") is not None:
        yield f"{prefix}_target_", str(node["_target_"])
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from _targets(child, f"{prefix}{key}.")


def _targets_of_source(source: ConfigSource, group: str = "") -> Iterator[str]:
    """The targets that the configs of a group name, and those of groups below it."""
    for name in source.list(group, ObjectType.CONFIG):
        config = source.load_config(f"{group}/{name}".lstrip("/")).config
        yield from (target for _, target in _targets(OmegaConf.to_container(config, resolve=False)))
    for name in source.list(group, ObjectType.GROUP):
        yield from _targets_of_source(source, f"{group}/{name}".lstrip("/"))
