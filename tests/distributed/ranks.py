"""Starts real processes that talk over gloo, and collects what each returns."""

import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

TIMEOUT = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _rank(rank: int, world_size: int, port: int, function: Callable[..., Any], arguments: tuple, results: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        dist.init_process_group("gloo", rank=rank, world_size=world_size)
        results.put((rank, function(rank, *arguments), None))
        dist.barrier()
        dist.destroy_process_group()
    except Exception:
        results.put((rank, None, traceback.format_exc()))


def on_ranks(world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`function(rank, *arguments)` on every rank; its results must be plain lists and numbers."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clvp_train.pipelines.train"])
    results, port = context.Queue(), free_port()
    processes = [
        context.Process(target=_rank, args=(rank, world_size, port, function, arguments, results))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    by_rank: dict[int, Any] = {}
    try:
        for _ in processes:
            rank, result, error = results.get(timeout=TIMEOUT)
            assert error is None, f"rank {rank}: {error}"
            by_rank[rank] = result
        for process in processes:
            process.join(TIMEOUT)
    finally:
        for process in processes:
            process.kill()
    return [by_rank[rank] for rank in range(world_size)]
