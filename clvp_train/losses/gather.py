"""Gathering embeddings over ranks without losing their gradients. Shapes: B rows a rank, W ranks, D width."""

import torch
import torch.distributed as dist


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, local_BD: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(local_BD) for _ in range(world_size())]
        dist.all_gather(parts, local_BD.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        # every rank's loss reads this rank's rows, so what reaches them is the sum over ranks
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(world_size())[rank()]


def gather(local_BD: torch.Tensor) -> torch.Tensor:
    """(B, D) on every rank to (W B, D) in the order of ranks, with the exact gradient. All ranks must hold the same B."""
    return local_BD if world_size() == 1 else _GatherWithGradient.apply(local_BD)
