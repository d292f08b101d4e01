"""Whether libraries can be loaded, tried in processes of their own, as they may fail in any way."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT = 120  # seconds


@dataclass(frozen=True)
class Loaded:
    """What came of it: an error in one line, or None, and what there is to say."""

    error: str | None
    found: Any = None


def load(modules: Sequence[str]) -> dict[str, Loaded]:
    """Tries them in this order in one process, and in another one from the first that fails on.

    Args:
        modules: the last one needs all the others, and is left out unless they load.
    """
    results = _load(list(modules))
    while left := [module for module in modules[:-1] if module not in results]:
        results |= _load(left)
    return results


def _load(modules: list[str]) -> dict[str, Loaded]:
    # -P: the folder of the script is none to import from, but those of this process are
    command = [sys.executable, "-P", str(Path(__file__).with_name("probe.py")), *modules]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT)
        told, end = done.stdout, _end(done.returncode)
    except subprocess.TimeoutExpired as error:
        told, end = (error.stdout or b"").decode(), f"does not load within {TIMEOUT} s"
    messages = [json.loads(line) for line in told.splitlines()]
    results = {}
    for begun, ended in zip(messages[::2], [*messages[1::2], {"error": end}]):
        results[begun["name"]] = Loaded(ended.get("error"), ended.get("found"))
    return results or {modules[0]: Loaded(end)}


def _end(status: int) -> str:
    return f"killed by {signal.Signals(-status).name} while it loads" if status < 0 else f"ends with status {status}"
