"""One optimiser step of a model of the published size (2 × 20 layers, 244 M parameters) on a CPU: peak memory by phase.

python benchmarks/train_memory.py                    # 512 pairs with cached gradients
python benchmarks/train_memory.py --pairs 8 --plain  # a plain step
"""

import argparse
import resource
import time

import torch
from lengths import batch
from torch import nn

from clvp_train.models import CLVPConfig, CLVPModel
from clvp_train.training import CLVPModule, OptimConfig, TrainingConfig
from clvp_train.training.optim import build_optimizer

START = time.monotonic()


def print_memory(phase: str) -> None:
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[1]) * resource.getpagesize() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| {phase} | {time.monotonic() - START:.0f} | {now:.2f} | {peak:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--chunk-tokens", type=int, default=864)
    parser.add_argument("--plain", action="store_true", help="without cached gradients")
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="bfloat16: autocast")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--limit", type=float, default=14, help="memory limit in GiB, so that the machine does not swap"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    resource.setrlimit(resource.RLIMIT_DATA, (int(args.limit * 2**30),) * 2)
    print("| after | seconds | resident GiB | peak GiB |\n| --- | --- | --- | --- |")
    print_memory("imports")
    tower = {"num_hidden_layers": args.layers}  # default dropout of 0.1, as in Tortoise
    model = CLVPModel(CLVPConfig(text_config=tower, speech_config=tower))
    settings = TrainingConfig(chunk_tokens=args.chunk_tokens, cached_gradients=not args.plain)
    module = CLVPModule(model, training=settings).train()
    optimizer = build_optimizer(module, OptimConfig())
    print_memory(f"model of {model.num_parameters() / 1e6:.0f} M parameters")
    rows = batch("ljspeech", args.pairs, (256, 8192), seed=0)
    with torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bfloat16"):
        text_BD, speech_BD = module.batch_encoder.embed(rows)
    print_memory(f"forward of {args.pairs} pairs")
    loss = module.loss(text_BD, speech_BD, model.logit_scale).loss
    loss.backward()
    print_memory("backward")
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()
    print_memory(f"AdamW; loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
