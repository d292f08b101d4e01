"""Imports libraries in subprocesses, because a broken one may raise any error, crash or hang.

This module is also the script of the subprocess: `python loading.py NAMES` imports the modules in order and prints two lines of
JSON for each, before and after. It stops at the first error: a module imported after it could fail for the same reason.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TIMEOUT = 120  # seconds
DEVICES = "devices"  # instead of a module: reports what torch can compute on


@dataclass(frozen=True)
class Loaded:
    """The result of an import: an error in one line, or None; and what `DEVICES` reports."""

    error: str | None
    report: Any = None


def load(modules: Sequence[str]) -> dict[str, Loaded]:
    """Imports modules in one subprocess, and those after an error in another.

    Args:
        modules: the last one depends on all the others. It is left out if one of them fails.
    """
    results = _load(list(modules))
    while remaining := [module for module in modules[:-1] if module not in results]:
        results |= _load(remaining)
    return results


def _load(modules: list[str]) -> dict[str, Loaded]:
    # -P: no imports from the folder of the script; PYTHONPATH: imports from where this process does
    command = [sys.executable, "-P", __file__, *modules]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT)
        output, end = done.stdout, f"exits with status {done.returncode}"
        if done.returncode < 0:
            end = f"killed by {signal.Signals(-done.returncode).name} during import"
    except subprocess.TimeoutExpired as error:
        output, end = (error.stdout or b"").decode(), f"not imported within {TIMEOUT} s"
    messages = [json.loads(line) for line in output.splitlines()]
    results = {}
    for before, after in zip(messages[::2], [*messages[1::2], {"error": end}]):
        results[before["name"]] = Loaded(after.get("error"), after.get("report"))
    return results or {modules[0]: Loaded(end)}


def _devices() -> dict[str, Any]:
    import torch

    from clvp_train.pipelines.cpu_features import native_bfloat16

    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    has_nccl = torch.cuda.is_available() and torch.distributed.is_nccl_available()
    return {
        "bfloat16": native_bfloat16(),
        "cuda": torch.version.cuda,
        "gpus": [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, capability {gpu.major}.{gpu.minor}" for gpu in gpus],
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if has_nccl else None,
        "mps": torch.backends.mps.is_available(),
    }


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())


def _main(names: list[str]) -> None:
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # keeps the prints of libraries out of the JSON
    for name in names:
        print(json.dumps({"name": name}), file=output)
        try:
            report = _devices() if name == DEVICES else importlib.import_module(name) and None
            print(json.dumps({"report": report}), file=output)
        except BaseException as error:
            print(json.dumps({"error": _root_cause(error)}), file=output)
            return


if __name__ == "__main__":
    _main(sys.argv[1:])
