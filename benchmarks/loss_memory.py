"""Time and peak memory of the losses alone: forward and backward on embeddings of width 768, in separate processes.

python benchmarks/loss_memory.py
"""

import argparse
import resource
import subprocess
import sys
import time

import torch
from torch.nn import functional

from clvp_train.losses import SigmoidLoss, SymmetricContrastiveLoss

LOSSES = {"contrastive": SymmetricContrastiveLoss, "sigmoid": SigmoidLoss}
CASES = [("contrastive", 4096, 4096), ("contrastive", 4096, 1024), ("sigmoid", 4096, 4096), ("sigmoid", 4096, 1024)]
CASES += [("contrastive", 32768, 1024), ("sigmoid", 32768, 1024)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.only:
        measure(args.only[0], int(args.only[1]), int(args.only[2]))
        return
    print("| loss | pairs | rows of logits at a time | seconds | peak GiB |\n| --- | --- | --- | --- | --- |")
    for case in CASES:
        command = [sys.executable, __file__, f"--threads={args.threads}", "--only", *map(str, case)]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


def measure(loss: str, pairs: int, chunk_size: int) -> None:
    torch.manual_seed(0)
    text, speech = (functional.normalize(torch.randn(pairs, 768), dim=-1).requires_grad_() for _ in range(2))
    scale, keys = torch.tensor(2.6592, requires_grad=True), torch.arange(pairs)
    start = time.perf_counter()
    LOSSES[loss](chunk_size=chunk_size)(text, speech, scale, keys).loss.backward()
    took, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| {loss} | {pairs} | {chunk_size} | {took:.1f} | {peak:.2f} |")


if __name__ == "__main__":
    main()
