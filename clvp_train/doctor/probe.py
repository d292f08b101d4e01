"""Loads libraries, one after another, and tells of each on a line of JSON how that went. Run as a script, by `loading.py`.

It stops at the first that fails: what is loaded after it may fail in another way than it would by itself.
"""

import importlib
import json
import os
import sys
from typing import Any

GIB = 2**30


def devices() -> dict[str, Any]:
    """What this torch can compute on."""
    import torch

    from clvp_train.pipelines.cpu_features import native_bfloat16

    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    has_nccl = torch.cuda.is_available() and torch.distributed.is_nccl_available()
    return {
        "bfloat16": native_bfloat16(),
        "built for CUDA": torch.version.cuda,
        "gpus": [f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB, capability {gpu.major}.{gpu.minor}" for gpu in gpus],
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if has_nccl else None,
        "mps": torch.backends.mps.is_available(),
    }


def cause(error: BaseException) -> str:
    """What began it, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())


def main(names: list[str]) -> None:
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print stays out of it
    for name in names:
        print(json.dumps({"name": name}), file=told)
        try:
            found = devices() if name == "devices" else importlib.import_module(name) and None
            print(json.dumps({"found": found}), file=told)
        except BaseException as error:
            print(json.dumps({"error": cause(error)}), file=told)
            return


if __name__ == "__main__":
    main(sys.argv[1:])
