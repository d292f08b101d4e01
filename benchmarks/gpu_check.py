"""Checks on a GPU what the tests, which run on a CPU, cannot: results that equal the CPU's, and speed.

    python benchmarks/gpu_check.py                         # about 5 minutes on an H100; no network
    python benchmarks/gpu_check.py --only codes,retrieval
    python benchmarks/gpu_check.py --tiny                  # small sizes, also without a GPU

Prints one Markdown table. The last column is `pass` or `FAIL` where a result must be right, and `-` where it is a measurement.
A check that raises fails with its traceback on stderr; the others still run. Exits with 1 if anything failed.
"""

import argparse
import csv
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from gpu_drawing import check_autoregressive, check_codes, check_dvae
from gpu_setup import NANO, ROOT, Row, Setup
from gpu_training import (
    build_model,
    check_compile,
    check_ddp,
    check_full_size,
    check_precision,
    check_syncs,
    run_rank,
)
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from clvp_train.metrics import retrieval_ranks
from clvp_train.models.modeling_clvp import AttentionContext, rotary_table

STOP_AT = """
import os, signal
import lightning as L

class StopAt(L.Callback):
    def on_train_batch_start(self, trainer, *_):
        if str(trainer.global_step) == os.environ.get("STOP_AT"):
            os.kill(os.getpid(), signal.SIGUSR1)
"""


def run_command(cwd: Path, *arguments: str, status: int = 0, **extra: str) -> None:
    """Runs a script of the repository and raises RuntimeError with its output if it exits with another status."""
    path = os.pathsep.join([str(ROOT), str(cwd), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", **extra}
    command = [sys.executable, str(ROOT / arguments[0]), *arguments[1:]]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240)
    if done.returncode != status:
        raise RuntimeError(f"{arguments}: status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def losses_of(run: Path) -> list[float]:
    with (run / "logs" / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def check_commands(setup: Setup) -> Iterator[Row]:
    """`train.py`, its stop by SIGUSR1 and resume, and `evaluate.py` on both devices."""
    with tempfile.TemporaryDirectory() as folder:
        cwd = Path(folder)
        (cwd / "sentences.txt").write_text("\n".join((NANO / "sentences.txt").read_text().splitlines()[:152]) + "\n")
        (cwd / "stop_at.py").write_text(STOP_AT)
        corpus = ["corpus=text", "corpus.path=sentences.txt", "split.test_percent=20", "split.val_percent=15"]
        device = [f"trainer={'gpu' if setup.device == 'cuda' else 'cpu'}", f"tortoise.device={setup.device}"]
        train = [
            "train.py",
            *corpus,
            *device,
            "data.batch_size=32",
            "trainer.max_steps=20",
            "trainer.log_every_n_steps=1",
        ]
        train += ["test=false", "+callbacks.stop_at._target_=stop_at.StopAt"]
        start = time.perf_counter()
        run_command(cwd, *train, "hydra.run.dir=uninterrupted")
        yield Row(
            f"train.py {device[0]}, 20 steps",
            f"{time.perf_counter() - start:.0f} s",
            len(losses_of(cwd / "uninterrupted")) == 20,
        )
        (pairs,) = (cwd / "outputs" / "codes").glob("*-ar-*")

        def stop_and_resume() -> None:
            run_command(cwd, *train, "hydra.run.dir=parts", STOP_AT="10", status=138)
            run_command(cwd, *train, "hydra.run.dir=parts", "resume=auto")

        evaluate = ["evaluate.py", "checkpoint=uninterrupted/model", f"pairs={pairs}", "rerank.num_texts=0"]
        with ThreadPoolExecutor() as pool:
            jobs = [pool.submit(run_command, cwd, *evaluate, "hydra.run.dir=cpu"), pool.submit(stop_and_resume)]
            jobs.append(pool.submit(run_command, cwd, *evaluate, device[0], "hydra.run.dir=gpu"))
        for job in jobs:
            job.result()
        differences = [
            abs(a - b) for a, b in zip(losses_of(cwd / "uninterrupted"), losses_of(cwd / "parts"), strict=True)
        ]
        yield Row(
            "SIGUSR1 and resume=auto", f"largest difference of losses {max(differences):.1e}", max(differences) < 0.02
        )
        reports = [json.loads(next((cwd / name).rglob("metrics.json")).read_text()) for name in ("cpu", "gpu")]
        ways = ("text_to_speech", "speech_to_text")
        cpu, gpu = ([report[way][name] for name in ("R@1", "MRR") for way in ways] for report in reports)
        equal = cpu[:2] == gpu[:2] and all(abs(a - b) < 1e-3 for a, b in zip(cpu, gpu))
        figure = ", ".join(f"{a:.4f} {b:.4f}" for a, b in zip(cpu, gpu))
        yield Row("evaluate.py on CPU and GPU: R@1 and MRR, both directions", figure, equal)


def check_retrieval(setup: Setup) -> Iterator[Row]:
    torch.manual_seed(0)

    def embeddings(size: int) -> tuple[torch.Tensor, torch.Tensor]:
        text_ND = functional.normalize(torch.randn(size, 768, device=setup.device), dim=1)
        noise_ND = functional.normalize(torch.randn(size, 768, device=setup.device), dim=1)
        return text_ND, functional.normalize(text_ND + 5 * noise_ND, dim=1)

    pair = embeddings(setup.pick(5000, 500))
    ranks, expected = retrieval_ranks(*pair), retrieval_ranks(*(part.cpu() for part in pair))
    different = sum(
        (getattr(ranks, way) != getattr(expected, way)).sum().item() for way in ("text_to_speech", "speech_to_text")
    )
    yield Row(f"retrieval ranks, {len(pair[0])} × 768, = CPU", f"{different} differ", different == 0)
    pair = embeddings(setup.pick(100_000, 2000))
    start = time.perf_counter()
    retrieval_ranks(*pair)  # the ranks are on the CPU
    yield Row(f"retrieval ranks, {len(pair[0])} × 768", f"{time.perf_counter() - start:.2f} s")


def check_attention(setup: Setup) -> Iterator[Row]:
    """Forward and backward of one encoder layer on 64 rows of 144 codes, by backend of scaled_dot_product_attention."""
    layer = build_model(setup.pick("full", "nano")).speech_model.layers[0]
    B, T = setup.pick((64, 144), (2, 16))
    layer, config = layer.to(setup.device), layer.self_attn.config
    x_BLD = torch.randn(B, T, config.hidden_size, device=setup.device, requires_grad=True)
    lengths_B = torch.randint(T // 2, T, (B,), device=setup.device)
    mask = (torch.arange(T, device=setup.device) < lengths_B[:, None])[:, None, None]
    rotary = tuple(
        table.bfloat16() for table in rotary_table(config.rotary_dim, torch.arange(T, device=setup.device)[None])
    )

    def step(masked: bool) -> None:
        with torch.autocast(setup.device, torch.bfloat16):
            layer(x_BLD, AttentionContext(mask if masked else None, rotary, "sdpa"), None)[0].sum().backward()

    backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH]
    for masked in (False, True):
        results = [f"default {setup.seconds(lambda: step(masked)) * 1e3:.2f} ms"]  # noqa: B023
        for backend in backends:
            with sdpa_kernel(backend), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    results.append(f"{backend.name} {setup.seconds(lambda: step(masked)) * 1e3:.2f} ms")  # noqa: B023
                except RuntimeError:
                    results.append(f"{backend.name} not available")
        yield Row(f"encoder layer, {B} × {T}, {'with' if masked else 'without'} a mask", ", ".join(results))


CHECKS: dict[str, Callable[[Setup], Iterator[Row]]] = {
    "codes": check_codes,
    "dvae": check_dvae,
    "retrieval": check_retrieval,
    "precision": check_precision,
    "syncs": check_syncs,
    "attention": check_attention,
    "autoregressive": check_autoregressive,
    "full_size": check_full_size,
    "ddp": check_ddp,
    "commands": check_commands,
    "compile": check_compile,
}
NOT_TINY = {"commands", "compile", "ddp"}  # slow on a CPU, where the tests cover them


def run_checks(setup: Setup, names: Sequence[str]) -> bool:
    """Prints the table and returns whether everything passed."""
    print("| check | result | figure | |\n| --- | --- | --- | --- |", flush=True)
    passed = True
    for name in names:
        start = time.perf_counter()
        try:
            if name == "syncs" and setup.device != "cuda":
                continue
            for row in CHECKS[name](setup):
                passed &= row.passed is not False
                verdict = {True: "pass", False: "FAIL", None: "-"}[row.passed]
                print(f"| {name} | {row.result} | {row.figure} | {verdict} |", flush=True)
        except Exception as error:
            passed = False
            traceback.print_exc(limit=-6)
            print(f"| {name} | {type(error).__name__} | {str(error).splitlines()[0][:200]} | FAIL |", flush=True)
        print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    return passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small sizes")
    parser.add_argument("--only", help=f"a comma-separated list of {', '.join(CHECKS)}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    setup = Setup(args.device, args.tiny)
    warnings.filterwarnings("ignore", module="lightning.*")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if args.device == "cpu" and not args.tiny:
        parser.error("no GPU found; --tiny runs on a CPU")
    if args.rank is not None:
        run_rank(setup, args.rank)
        return
    names = args.only.split(",") if args.only else [name for name in CHECKS if not (args.tiny and name in NOT_TINY)]
    device = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"{device}, torch {torch.__version__}, Python {sys.version.split()[0]}\n")
    sys.exit(not run_checks(setup, names))


if __name__ == "__main__":
    main()
