"""Attention on a CPU, forward and backward, in float32 and bfloat16. It is why `modeling_clvp.py` uses float32.

python benchmarks/cpu_attention.py
"""

import argparse
import statistics
import time

import torch
from torch.nn import functional

SHAPES = [(32, 2, 24), (32, 2, 48), (16, 12, 200), (4, 12, 400)]  # rows, heads of 64, length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("| rows × heads × length | float32, ms | bfloat16, ms | bfloat16 / float32 |\n| --- | --- | --- | --- |")
    for shape in SHAPES:
        exact, rounded = (measure(shape, dtype, args.rounds) for dtype in (torch.float32, torch.bfloat16))
        print(f"| {' × '.join(map(str, shape))} | {exact:.2f} | {rounded:.2f} | {rounded / exact:.2f} |", flush=True)


def measure(shape: tuple[int, int, int], dtype: torch.dtype, rounds: int) -> float:
    rows, heads, length = shape
    query, key, value = (torch.randn(rows, heads, length, 64, dtype=dtype, requires_grad=True) for _ in range(3))
    mask = torch.ones(rows, 1, 1, length, dtype=torch.bool)
    took = []
    for _ in range(rounds + 3):
        start = time.perf_counter()
        functional.scaled_dot_product_attention(query, key, value, mask).sum().backward()
        took.append(time.perf_counter() - start)
    return 1000 * statistics.median(took[3:])


if __name__ == "__main__":
    main()
