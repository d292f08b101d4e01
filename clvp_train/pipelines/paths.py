"""Settings that are paths: what a user types reaches them as a shell would pass it, and `~` is expanded.

Hydra's grammar refuses `best-step=3.ckpt`, `~/corpus` and `Jürgen`, and reads `2024_01_15` as a number and `[v2]` as a list.
Such values are quoted before Hydra parses the command line. A value that Hydra reads as it was typed is left alone, and so are
quoted values, null, interpolations, and the choices of a sweep.
"""

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from clvp_train.errors import UserError

# full names of settings; a user's own class that calls its paths so is served as well
PATHS = (
    *("base", "checkpoint", "candidates", "output_dir", "pairs", "pairs.*", "reference", "report", "resume", "voices"),
    *("references", "reranker.voice", "source.name", "tokenizer", "corpus.name", "hub.card", "model.checkpoint"),
    *("*.root", "*.path", "*.folder", "*.dir", "*.subdir", "*.dirpath", "*.save_dir", "*.voices", "*.transcripts"),
    *("*.tokenizer", "*.name_or_path", "*.judge.asr", "*.judge.recordings"),
    *("paths.*", "rerank.asr", "rerank.pairs", "rerank.recordings"),
    *("tortoise.autoregressive", "tortoise.dvae", "tortoise.mel_norms"),
)
LISTS = ("checkpoint", "pairs")  # that take several paths, as in [A,B]
WEIGHT = "weight"  # of a folder of pairs


def is_path(name: str) -> bool:
    """Whether a setting is a path."""
    return any(fnmatchcase(name, pattern) for pattern in PATHS) and not name.endswith(f".{WEIGHT}")


def quote(path: str) -> str:
    """A path as Hydra reads it in an override."""
    return QuotedString(path, Quote.single).with_quotes()


def quote_paths(arguments: list[str]) -> list[str]:
    """The arguments of a command, those that set a path quoted where Hydra would refuse or misread them."""
    is_sweep = any(argument in ("--multirun", "-m", "hydra.mode=MULTIRUN") for argument in arguments)
    return [_quote_argument(argument, is_sweep) for argument in arguments]


def expand_paths(cfg: DictConfig) -> None:
    """Expands `~` in the settings of a config that are paths.

    Raises:
        UserError: a path without quotes in a YAML file, which is a number there.
    """
    for name, node, key in _leaves(cfg):
        value = node[key] if is_path(name) else None
        if isinstance(value, (bool, int, float)):
            raise UserError(f"{name}={value}: not a path. Put it in quotes.")
        if isinstance(value, str) and value.startswith("~"):
            node[key] = os.path.expanduser(value)


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The name, container and key of each value below a node that is set and no interpolation."""
    keys: Any = node if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        # the paths of a list are named as the list
        name = prefix if isinstance(node, ListConfig) else f"{prefix}.{key}".lstrip(".")
        if OmegaConf.is_config(node[key]):
            yield from _leaves(node[key], name)
        else:
            yield name, node, key


def _quote_argument(argument: str, is_sweep: bool) -> str:
    key, equals, value = argument.partition("=")
    name = key.lstrip("+")
    if not equals or key.startswith(("-", "~")) or not is_path(name):
        return argument
    items = _split(value) if is_sweep and not _exists(value) else [value]
    return f"{key}={','.join(_quote_value(name, item, is_sweep) for item in items)}"


def _quote_value(name: str, value: str, is_sweep: bool) -> str:
    """A value, quoted if Hydra would not read it as the path or list of paths that it is."""
    parsed = _parse(value)
    is_choice = parsed is not None and parsed.is_sweep_override()
    read = None if parsed is None or is_choice else parsed.value()  # without quotes
    if value in ("", "null") or (isinstance(read, str) and read == value and not value.endswith("\\")):
        return value
    if not _exists(value):
        if isinstance(read, str) and not value.endswith("\\"):
            return value
        if is_sweep and is_choice:
            return value
        inner = value[1:-1]
        if _is_enclosed(value, "[", "]") and (name in LISTS or len(_split(inner)) > 1):
            return f"[{','.join(_quote_value(f'{name}.0', item.strip(), False) for item in _split(inner))}]"
        if _is_enclosed(value, "{", "}") and name.split(".")[0] == "pairs":
            return f"{{{','.join(_quote_item(name, item) for item in _split(inner))}}}"
    # Hydra creates its folders before this package sees the config
    return quote(os.path.expanduser(value) if name.startswith("hydra.") else value)


def _quote_item(name: str, item: str) -> str:
    """KEY:VALUE of a dict."""
    key, colon, value = item.partition(":")
    if not colon or key.strip() == WEIGHT:
        return item
    return f"{key}:{_quote_value(f'{name}.{key.strip()}', value.strip(), False)}"


def _parse(value: str) -> Override | None:
    """How Hydra reads a value; None if it refuses it."""
    try:
        return OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return None


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(os.path.expanduser(path))
    except ValueError:  # a null character
        return False


def _is_enclosed(value: str, opening: str, closing: str) -> bool:
    """Whether a value is one list or one dict, unlike [v2]/a,b/[v3]."""
    depths = list(_depths(value))
    return value.startswith(opening) and value.endswith(closing) and 0 not in depths[:-1]


def _split(value: str) -> list[str]:
    """The parts of a value between commas outside of quotes and brackets."""
    parts = [""]
    for character, depth in zip(value, _depths(value)):
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _depths(value: str) -> Iterator[int]:
    """For each character the number of brackets and quotes that it is in. A quote in a word, as in it's, opens nothing."""
    depth, quoted, before = 0, "", ","
    for character in value:
        if quoted:
            quoted = "" if character == quoted and before != "\\" else quoted
        elif character in "'\"" and before in ",[{(: ":
            quoted = character
        else:
            depth = max(0, depth + (character in "[{(") - (character in "]})"))
        yield depth + bool(quoted)
        before = character
