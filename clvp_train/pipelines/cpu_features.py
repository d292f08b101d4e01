"""Hardware features of the CPU."""

import torch


def native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware; emulated, they are slower than float32."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
