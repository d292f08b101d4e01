"""Rules of a setting: how a schema declares them, whether a value keeps them, and how messages describe them."""

import math
import types
import typing
from dataclasses import MISSING, field
from typing import Any

Number = int | float
# larger values are typing errors: nobody needs them, and no machine finishes
MAX_SEED, MAX_CANDIDATES, MAX_NEGATIVES, MAX_LAYERS, MAX_WIDTH = 2**32 - 1, 10_000, 1000, 1000, 100_000
MAX_VOCABULARY, MAX_STREAMS = 10_000_000, 1000
MAX_CODES: dict[str, Any] = {"ge": 4, "why": "tortoise-tts ends every sequence with three codes of silence"}
BOUNDS = {
    "ge": ("≥", lambda value, bound: value >= bound),
    "gt": (">", lambda value, bound: value > bound),
    "le": ("≤", lambda value, bound: value <= bound),
    "lt": ("<", lambda value, bound: value < bound),
}
NOUNS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}


def setting(default: Any = MISSING, **rules: Any) -> Any:
    """A field of a schema with rules, which hold for each item of a list.

    Args:
        default: its value where no YAML file has one.
        rules: `ge`, `gt`, `le`, `lt`: bounds of a number. `choices`: the allowed values, or a function that returns them.
            `min_length`, `max_length`: of a list. `why`: the reason, for the message. `only` and `instead`: the one allowed
            value of a Trainer flag that this package sets itself, and which setting to use.
    """
    return field(default=default, metadata=rules)


def in_range(rules: Any, value: Any) -> bool:
    """Whether a value of the right type keeps the rules."""
    if isinstance(value, list) and not rules.get("min_length", 0) <= len(value) <= rules.get("max_length", len(value)):
        return False
    for item in value if isinstance(value, list) else [value]:
        if "choices" in rules and item not in _choices(rules):
            return False
        is_number = isinstance(item, (int, float)) and not isinstance(item, bool)
        if is_number and not abs(item) < (2**63 if isinstance(item, int) else math.inf):  # the integers of a tensor
            return False
        if is_number and not all(holds(item, rules[rule]) for rule, (_, holds) in BOUNDS.items() if rule in rules):
            return False
    return True


def expected(hint: Any, rules: Any) -> str:
    """The values that a setting takes, in words."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    kinds = [option for option in options if option is not type(None)]
    is_list = typing.get_origin(kinds[0]) is list
    kind = typing.get_args(kinds[0])[0] if is_list else float if float in kinds else kinds[0]
    bounds = " and ".join(f"{sign} {rules[rule]}" for rule, (sign, _) in BOUNDS.items() if rule in rules)
    words = f"{NOUNS.get(kind, 'a value')} {bounds}".strip()
    if "choices" in rules:
        words = f"one of {', '.join('null' if choice is None else str(choice) for choice in _choices(rules))}"
    if is_list:
        words = f"a list of {_length(rules)} items, each {words}"
    if bool in kinds and int in kinds:
        words = f"true, false or an integer {bounds}"
    return words + (" or null" if type(None) in options else "")


def _choices(rules: Any) -> typing.Sequence[Any]:
    return rules["choices"]() if callable(rules["choices"]) else rules["choices"]


def _length(rules: Any) -> str:
    least, most = rules.get("min_length", 0), rules.get("max_length")
    if least == most:
        return str(most)
    return f"at least {least}" if least else f"at most {most}" if most else "any number of"
