"""Gathers embeddings of all ranks with their gradients. Shapes: B rows a rank, W ranks, D width."""

import torch
import torch.distributed as dist

from clvp_train.io.process_rank import rank_and_world_size


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, local_BD: torch.Tensor) -> torch.Tensor:
        gathered = local_BD.new_empty(rank_and_world_size()[1] * len(local_BD), *local_BD.shape[1:])
        dist.all_gather_into_tensor(gathered, local_BD.contiguous())
        return gathered

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        # every rank's loss depends on this rank's rows, so their gradient is the sum over ranks
        own = gradient.new_empty(len(gradient) // rank_and_world_size()[1], *gradient.shape[1:])
        dist.reduce_scatter_tensor(own, gradient.contiguous())
        return own


def gather(local_BD: torch.Tensor) -> torch.Tensor:
    """(B, D) on every rank to (W B, D) in order of ranks, with the exact gradient. B must be equal on all ranks."""
    return local_BD if rank_and_world_size()[1] == 1 else _GatherWithGradient.apply(local_BD)
