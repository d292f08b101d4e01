"""Whether all ranks train on the same pairs. Else batches would share texts, or one rank run out while others wait."""

import torch.distributed as dist

from clvp_train.errors import UserError


def check_same_pairs(folder: str, facts: str) -> None:
    """Compares what the ranks know of their pairs; without a process group there is nothing to compare.

    Args:
        folder: where this rank's pairs lie, which may differ.
        facts: what may not differ, fit for a message.

    Raises:
        UserError: a rank has other pairs than the first. All ranks raise it.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    found: list[tuple[str, str]] = [("", "")] * dist.get_world_size()
    dist.all_gather_object(found, (folder, facts))
    first, *others = [f"{folder} ({facts})" for folder, facts in found]
    for rank, other in enumerate(others, 1):
        if found[rank][1] != found[0][1]:
            raise UserError(f"rank 0 has the pairs {first}, but rank {rank} {other}: give all ranks the same pairs")
