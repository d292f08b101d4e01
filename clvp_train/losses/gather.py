"""Gathers embeddings of all ranks with their gradients. Shapes: B rows a rank, W ranks, D width."""

import torch
import torch.distributed as dist

from clvp_train.io.process_rank import rank_and_world_size


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, local_BD: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(local_BD) for _ in range(rank_and_world_size()[1])]
        dist.all_gather(parts, local_BD.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        # every rank's loss depends on this rank's rows, so their gradient is the sum over ranks
        gradient, (rank, world_size) = gradient.contiguous(), rank_and_world_size()
        dist.all_reduce(gradient)
        return gradient.chunk(world_size)[rank]


def gather(local_BD: torch.Tensor) -> torch.Tensor:
    """(B, D) on every rank to (W B, D) in order of ranks, with the exact gradient. B must be equal on all ranks."""
    return local_BD if rank_and_world_size()[1] == 1 else _GatherWithGradient.apply(local_BD)
