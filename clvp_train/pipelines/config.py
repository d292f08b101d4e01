"""Checks a composed config against the schemas of `schema`, before any work. Nothing here imports torch."""

import difflib
import shutil
import typing
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import ValidationError

from clvp_train.errors import UserError
from clvp_train.io.sanitize import find_secret
from clvp_train.pipelines.rules import expected, in_range
from clvp_train.pipelines.schema import SCHEMAS, Root

SECRET_ADVICE = "which runs would store and publish. Remove it, or write ${oc.env:NAME}."
BY_TARGET: dict[str, type] = {schema._target_: schema for schema in SCHEMAS}


def validate(cfg: DictConfig, root: type = Root) -> None:
    """Raises one UserError that lists every setting that is missing, misspelt, of a wrong type, out of range or a secret.

    Args:
        cfg: the composed config of a command.
        root: the schema of the settings outside of groups; settings that it does not name are not checked.
    """
    findings = _check(cfg, root)
    if any(finding.endswith(SECRET_ADVICE) for finding in findings):
        _remove_stored_settings()
    if findings:
        raise UserError(" ".join(findings))


def _remove_stored_settings() -> None:
    """Removes the files in which Hydra has stored the settings of this command."""
    if not HydraConfig.initialized():
        return
    config: Any = HydraConfig.get()
    output, subfolder = (OmegaConf.select(config, key) for key in ("runtime.output_dir", "output_subdir"))
    if output and subfolder:
        shutil.rmtree(Path(output, subfolder), ignore_errors=True)


def without_secrets(cfg: DictConfig) -> dict[str, Any]:
    """The resolved settings; values with a secret, such as those of ${oc.env:NAME}, are replaced by its name."""

    def redacted(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: redacted(child) for key, child in value.items()}
        if isinstance(value, list):
            return [redacted(child) for child in value]
        return (find_secret(value) or value) if isinstance(value, str) else value

    return redacted(OmegaConf.to_container(cfg, resolve=True))


def _check(node: DictConfig, schema: Any, prefix: str = "") -> list[str]:
    """What is wrong with a node and those below it."""
    findings = list(_check_fields(node, schema, prefix))
    if not findings and hasattr(schema, "conflict"):
        findings += [f"{prefix}{message}" for message in [schema.conflict(node)] if message]
    return findings


def _check_fields(node: DictConfig, schema: Any, prefix: str) -> Iterator[str]:
    """What is wrong with each setting of a node. Without a schema only secrets and missing values are."""
    known = {field.name: field for field in fields(schema)} if schema else {}
    hints = typing.get_type_hints(schema) if schema else {}
    is_closed = schema and prefix and not getattr(schema, "takes_more", False)
    as_typed: Any = OmegaConf.to_container(node, resolve=False)
    for key in map(str, node):
        name, field, hint = f"{prefix}{key}", known.get(key), hints.get(key, Any)
        secret = None if isinstance(as_typed[key], dict) else find_secret(str(as_typed[key]))
        if secret is not None:
            yield f"{name}: contains {secret}, {SECRET_ADVICE}"
        elif OmegaConf.is_missing(node, key):
            yield f"{name}: not set. Add {name}=… to the command."
        elif is_closed and field is None and not key.startswith("_"):
            close = difflib.get_close_matches(key, known, n=1)
            yield f"{name}: no such setting. " + (f"Did you mean {prefix}{close[0]}?" if close else "See --help.")
        elif field is not None and _declares_values(field, hint):
            problem = _problem(schema, field, hint, node[key])
            if problem is not None:
                yield f"{name} {problem}"
        # an interpolation is checked where it points to; to resolve one may import torch
        elif not OmegaConf.is_interpolation(node, key) and isinstance(node[key], DictConfig):
            below = hint if is_dataclass(hint) else BY_TARGET.get(node[key].get("_target_"))
            yield from _check(node[key], below, f"{name}.")


def _declares_values(field: Field[Any], hint: Any) -> bool:
    """Whether a field has a type or rules for its value. Otherwise it is a group of settings, or may be anything."""
    return bool(field.metadata) or not (hint is Any or is_dataclass(hint))


def _problem(schema: Any, field: Field[Any], hint: Any, value: Any) -> str | None:
    """Why a setting does not take a value, or None if it does."""
    plain, rules = _plain(value), field.metadata
    if "only" in rules:
        allowed = rules["only"] if isinstance(rules["only"], tuple) else (rules["only"],)
        return None if plain in allowed else f"is set by this package (got {_typed(plain)}): {rules['instead']}."
    if _has_type(schema, field.name, plain) and in_range(rules, plain):
        return None
    why = f": {rules['why']}" if "why" in rules else ""
    return f"must be {expected(hint, rules)} (got {_typed(plain)}){why}."


def type_error(schema_name: str, setting: str) -> str:
    """The message for a value that OmegaConf does not take, such as "trainer.max_steps must be an integer"."""
    schema = next(schema for schema in SCHEMAS if schema.__name__ == schema_name)
    key = setting.rpartition(".")[2]
    field = next(field for field in fields(schema) if field.name == key)
    return f"{setting} must be {expected(typing.get_type_hints(schema)[key], field.metadata)}"


def _typed(value: Any) -> str:
    """A value as a user types it; a secret in it is hidden."""
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "a secret" if find_secret(str(value)) else str(value)


def _has_type(schema: Any, name: str, value: Any) -> bool:
    """Whether OmegaConf takes the value for that field of the schema as it is, without a conversion."""
    node = _node(schema)
    try:
        node[name] = value
    except ValidationError:
        return False
    held = _plain(node[name])
    return isinstance(value, bool) == isinstance(held, bool) and held == value


@cache
def _node(schema: Any) -> DictConfig:
    return OmegaConf.structured(schema)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, Container) else value
