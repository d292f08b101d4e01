"""Retrieval ranks in both directions on the same embeddings: this package, open_clip, and the matrix product alone.

    python benchmarks/retrieval.py                                    # open_clip from the package index: a full sort
    python benchmarks/retrieval.py --open-clip CHECKOUT/src           # also the chunked metric of its repository
    python benchmarks/retrieval.py --size 100000 --only clvp_train    # memory and time of a large gallery

The speech embeddings are the text embeddings plus noise, so that most pairs are retrieved. Times are medians of several
rounds; peak memory is measured in a separate process.
"""

import argparse
import ast
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from clvp_train.metrics import rank_summary, retrieval_ranks

ROOT = Path(__file__).parents[1]
OPEN_CLIP = "open_clip_torch==3.3.0"
Implementation = Callable[[torch.Tensor, torch.Tensor], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--noise", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--open-clip", type=Path, help="the src folder of a checkout")
    parser.add_argument("--only", help="run a single implementation")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    implementations = find_implementations(args)
    if args.only:
        seconds, found = timed(implementations[args.only], *embeddings(args), args.rounds if args.size < 20_000 else 1)
        print(f"{args.only}: {seconds:.2f} s, peak {peak()} MiB{'' if found is None else f', {found}'}")
        return
    text, speech = embeddings(args)
    took: dict[str, list[float]] = {name: [] for name in implementations}
    for _ in range(args.rounds):  # in turn, so that a slow phase of the machine affects all
        for name, implementation in implementations.items():
            took[name].append(timed(implementation, text, speech, 1)[0])
    own = statistics.median(took["clvp_train"])
    print(f"{args.size} × {args.width}, float32, {args.threads} threads, R@1 {recall(text, speech):.3f}\n")
    print("| | seconds | speed-up of clvp_train | peak MiB |\n| --- | --- | --- | --- |")
    for name, seconds in took.items():
        median = statistics.median(seconds)
        print(f"| {name} | {median:.2f} | {median / own:.2f} | {peak_of(name)} |", flush=True)


def embeddings(args: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    text = torch.nn.functional.normalize(torch.randn(args.size, args.width, generator=draw), dim=1)
    speech = torch.randn(args.size, args.width, generator=draw).mul_(args.noise).add_(text)
    return text, torch.nn.functional.normalize(speech, dim=1)


def find_implementations(args: argparse.Namespace) -> dict[str, Implementation]:
    found: dict[str, Implementation] = {"clvp_train": lambda text, speech: recall(text, speech)}
    found["matrix product only"] = lambda text, speech: (text @ speech.T, None)[1]
    if args.only not in found:
        found["open_clip, full sort"] = full_sort()
    if args.open_clip:
        found["open_clip, in chunks"] = in_chunks(args.open_clip / "open_clip_train" / "metrics.py")
    return found


def recall(text: torch.Tensor, speech: torch.Tensor) -> float:
    found = retrieval_ranks(text, speech)
    return (rank_summary(found.text_to_speech)["R@1"] + rank_summary(found.speech_to_text)["R@1"]) / 2


def full_sort() -> Implementation:
    """`get_clip_metrics` of the package, without the rest of its training script and its imports."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, OPEN_CLIP]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        (wheel,) = Path(folder).glob("*.whl")
        source = zipfile.ZipFile(wheel).read("open_clip_train/train.py").decode()
    functions = [node for node in ast.parse(source).body if getattr(node, "name", "") == "get_clip_metrics"]
    space = {"np": np, "torch": torch}
    exec(compile(ast.Module(functions, []), "open_clip_train/train.py", "exec"), space)
    metrics = space["get_clip_metrics"]
    return lambda text, speech: round(float(metrics(text, speech, 1.0)["image_to_text_R@1"]), 3)


def in_chunks(file: Path) -> Implementation:
    spec = importlib.util.spec_from_file_location("open_clip_metrics", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda text, speech: (
        module._paired_retrieval_ranks(text, speech, 1.0, module.DEFAULT_RETRIEVAL_CHUNK_SIZE) and None
    )


def timed(
    implementation: Implementation, text: torch.Tensor, speech: torch.Tensor, rounds: int
) -> tuple[float, object]:
    seconds, found = [], None
    for _ in range(rounds):
        start = time.perf_counter()
        found = implementation(text, speech)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), found


def peak() -> int:
    """Peak resident MiB of this process; unlike `ru_maxrss`, without the memory of its parent when it was started."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


def peak_of(name: str) -> str:
    command = [sys.executable, __file__, *sys.argv[1:], "--rounds=1", f"--only={name}"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return printed.split("peak ")[1].split(" MiB")[0]


if __name__ == "__main__":
    main()
