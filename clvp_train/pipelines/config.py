"""Checks a composed config against the schemas of `schema`, before any work. Nothing here imports torch."""

import difflib
import types
import typing
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from typing import Any, cast

from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import ValidationError

from clvp_train.errors import UserError
from clvp_train.pipelines.schema import SCHEMAS, Root

BY_TARGET = {OmegaConf.structured(schema)._target_: schema for schema in SCHEMAS}
BOUNDS = {
    "ge": ("≥", lambda value, bound: value >= bound),
    "gt": (">", lambda value, bound: value > bound),
    "le": ("≤", lambda value, bound: value <= bound),
    "lt": ("<", lambda value, bound: value < bound),
}
NOUNS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}


def validate(cfg: DictConfig, root: type = Root) -> None:
    """Raises one UserError that lists every setting that is missing, misspelt, of a wrong type or out of range.

    Args:
        cfg: the composed config of a command.
        root: the schema of the settings outside of groups; settings that it does not name are not checked.
    """
    findings = _check(cfg, root)
    if findings:
        raise UserError(" ".join(findings))


def _check(node: DictConfig, schema: Any, prefix: str = "") -> list[str]:
    """What is wrong with a node and those below it."""
    findings = list(_check_fields(node, schema, prefix))
    if not findings and hasattr(schema, "conflict"):
        findings += [f"{prefix}{message}" for message in [schema.conflict(node)] if message]
    return findings


def _check_fields(node: DictConfig, schema: Any, prefix: str) -> Iterator[str]:
    known = {field.name: field for field in fields(schema)} if schema else {}
    hints = typing.get_type_hints(schema) if schema else {}
    is_closed = schema and prefix and not getattr(schema, "takes_more", False)
    for key in map(str, node):
        name, hint = f"{prefix}{key}", hints.get(key, Any)
        if OmegaConf.is_missing(node, key):
            yield f"{name}: not set. Add {name}=… to the command."
        elif is_closed and key not in known and not key.startswith("_"):
            close = difflib.get_close_matches(key, known, n=1)
            yield f"{name}: no such setting. " + (f"Did you mean {prefix}{close[0]}?" if close else "See --help.")
        elif (hint is Any or is_dataclass(hint)) and not (key in known and known[key].metadata):
            # an interpolation is checked where it points to; to resolve one may import torch
            if not OmegaConf.is_interpolation(node, key) and isinstance(node[key], DictConfig):
                below = hint if is_dataclass(hint) else BY_TARGET.get(node[key].get("_target_"))
                yield from _check(node[key], below, f"{name}.")
        elif key != "_target_" and (problem := _problem(schema, known[key], hint, node[key])) is not None:
            yield f"{name} {problem}"


def _problem(schema: Any, field: Field[Any], hint: Any, value: Any) -> str | None:
    """Why a setting does not take a value, or None if it does."""
    plain = OmegaConf.to_container(value, resolve=True) if isinstance(value, Container) else value
    rules = field.metadata
    if "only" in rules:
        allowed = rules["only"] if isinstance(rules["only"], tuple) else (rules["only"],)
        return None if plain in allowed else f"is set by this package (got {_typed(plain)}): {rules['instead']}."
    if _has_type(schema, field.name, plain) and _in_range(rules, plain):
        return None
    why = f": {rules['why']}" if "why" in rules else ""
    return f"must be {_expected(hint, rules)} (got {_typed(plain)}){why}."


def type_error(schema_name: str, setting: str) -> str:
    """The message for a value that OmegaConf does not take, such as "trainer.max_steps must be an integer"."""
    schema = next(schema for schema in SCHEMAS if schema.__name__ == schema_name)
    key = setting.rpartition(".")[2]
    field = next(field for field in fields(schema) if field.name == key)
    return f"{setting} must be {_expected(typing.get_type_hints(schema)[key], field.metadata)}"


def _typed(value: Any) -> str:
    """A value as a user types it."""
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def _has_type(schema: Any, name: str, value: Any) -> bool:
    """Whether OmegaConf takes the value for that field of the schema as it is, without a conversion."""
    typed = OmegaConf.structured(schema)
    try:
        typed[name] = value
    except ValidationError:
        return False
    held = cast(dict[str, Any], OmegaConf.to_container(typed))[name]
    return isinstance(value, bool) == isinstance(held, bool) and held == value


def _in_range(rules: Any, value: Any) -> bool:
    if isinstance(value, list) and not rules.get("min_length", 0) <= len(value) <= rules.get("max_length", len(value)):
        return False
    for item in value if isinstance(value, list) else [value]:
        if "choices" in rules and item not in rules["choices"]:
            return False
        is_number = isinstance(item, (int, float)) and not isinstance(item, bool)
        if is_number and not all(holds(item, rules[rule]) for rule, (_, holds) in BOUNDS.items() if rule in rules):
            return False
    return True


def _expected(hint: Any, rules: Any) -> str:
    """The values that a setting takes, in words."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    kinds = [option for option in options if option is not type(None)]
    is_list = typing.get_origin(kinds[0]) is list
    kind = typing.get_args(kinds[0])[0] if is_list else float if float in kinds else kinds[0]
    bounds = " and ".join(f"{sign} {rules[rule]:g}" for rule, (sign, _) in BOUNDS.items() if rule in rules)
    words = f"{NOUNS.get(kind, 'a value')} {bounds}".strip()
    if "choices" in rules:
        words = f"one of {', '.join('null' if choice is None else str(choice) for choice in rules['choices'])}"
    if is_list:
        least, most = rules.get("min_length", 0), rules.get("max_length")
        count = (
            str(most)
            if least == most
            else f"at least {least}"
            if least
            else f"at most {most}"
            if most
            else "any number of"
        )
        words = f"a list of {count} items, each {words}"
    if bool in kinds and int in kinds:
        words = f"true, false or an integer {bounds}"
    return words + (" or null" if type(None) in options else "")
