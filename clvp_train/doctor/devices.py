"""What there is to compute on."""

import os
import shutil

from clvp_train.doctor.loading import Loaded
from clvp_train.doctor.rows import Row

GIB = 2**30


def devices(loaded: Loaded) -> list[Row]:
    """Rows of the CPU, the GPUs and what joins them.

    Args:
        loaded: what `probe.py` said of them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    machine = f"{cores} cores, {memory:.0f} GiB of memory"
    if loaded.error is not None:
        return [Row("CPU", machine), Row("others", "not known, as torch does not tell")]
    found = loaded.found
    rows = [Row("CPU", f"{machine}, {'native' if found['bfloat16'] else 'no native'} bfloat16")]
    rows += [Row(f"cuda:{number}", gpu) for number, gpu in enumerate(found["gpus"])]
    if not found["gpus"]:
        rows.append(Row("CUDA", f"none{_why(found['built for CUDA'])}"))
    rows.append(Row("NCCL", found["nccl"] or "none, as there is no GPU for it"))
    rows.append(Row("MPS", "there" if found["mps"] else "none"))
    return rows


def _why(built_for: str | None) -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    if built_for is None:
        return ", as this torch is built without it, though there is an NVIDIA driver"
    return f", as the NVIDIA driver does not serve this torch, which is built for CUDA {built_for}"
