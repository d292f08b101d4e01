"""Checks of `gpu_check.py`: losses and speed of training steps."""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import lightning as L
import torch
from gpu_setup import ROOT, Row, Setup, peak_gib, reset_peak
from lengths import batch
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from clvp_train.data.collate import Batch
from clvp_train.models import CLVPConfig, CLVPModel
from clvp_train.training import EMA, CLVPModule, OptimConfig, TrainingConfig
from clvp_train.training.batch_encoder import host_lengths
from clvp_train.training.throughput import Throughput, peak_flops

SHAPES = {
    "nano": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 2},
    "full": {"hidden_size": 768, "intermediate_size": 1536, "num_hidden_layers": 20, "num_attention_heads": 12},
}
VOCABULARIES = (256, 8192)  # text, speech


@dataclass
class Recorder(L.Callback):
    """Losses and end times of steps; `loss.item()` waits for the device."""

    losses: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, *args: Any) -> None:
        self.losses.append(outputs["loss"].item())
        self.times.append(time.perf_counter())

    @property
    def step(self) -> float:
        """Median seconds of the second 50% of the steps."""
        steps = [after - before for before, after in zip(self.times, self.times[1:])]
        return statistics.median(steps[len(steps) // 2 :])


def build_model(size: str) -> CLVPModel:
    torch.manual_seed(0)
    shape = SHAPES[size] | {"dropout": 0.0, "attention_dropout": 0.0}
    towers = {f"{name}_config": {**shape, "vocab_size": count} for name, count in zip(("text", "speech"), VOCABULARIES)}
    return CLVPModel(CLVPConfig(**towers, projection_dim=shape["hidden_size"])).train()


def fit(model: CLVPModel, batches: Sequence[Batch], callbacks: list[L.Callback], training=None, **trainer: Any) -> None:
    """Trains on the batches once, without logging and checkpoints."""
    module = CLVPModule(model, None, OptimConfig(lr=5e-4), len(batches), training)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    settings = {"devices": 1, "max_epochs": 1, "use_distributed_sampler": False, **quiet, **trainer}
    loader = DataLoader(
        list(batches), batch_size=None, collate_fn=lambda rows: rows
    )  # by default arrays become tensors
    L.Trainer(callbacks=callbacks, **settings).fit(module, loader)


def batches(count: int, size: int) -> list[Batch]:
    """Batches with the lengths of LJSpeech: 61 text tokens and 142 codes in the mean."""
    return [batch("ljspeech", size, VOCABULARIES, seed) for seed in range(count)]


def check_precision(setup: Setup) -> Iterator[Row]:
    """The losses of the first steps of a small model, in each precision."""
    data, reference = batches(*setup.pick((20, 64), (3, 8))), Recorder()
    fit(build_model("nano"), data, [reference], accelerator="cpu", precision="32-true")
    yield Row("losses, CPU 32-true", f"{reference.losses[0]:.4f} → {reference.losses[-1]:.4f}")
    # the loss scaler skips the first steps, so that the losses are those of a few steps before
    float16 = {"16-mixed": 1.0} if setup.device == "cuda" else {}
    for precision, tolerance in {"32-true": 2e-3, "bf16-mixed": 0.1, **float16}.items():
        for cached in (False, True):
            recorder, training = Recorder(), TrainingConfig(chunk_tokens=setup.pick(2048, 512), cached_gradients=cached)
            fit(build_model("nano"), data, [recorder], training, accelerator=setup.device, precision=precision)
            error = max(abs(a - b) for a, b in zip(recorder.losses, reference.losses, strict=True))
            name = f"losses, {setup.device} {precision}{', cached gradients' if cached else ''} = CPU 32-true"
            yield Row(name, f"largest difference {error:.1e}, last loss {recorder.losses[-1]:.4f}", error < tolerance)


class WatchSyncs(L.Callback):
    """Warns of every wait for the device between the starts of two steps."""

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Batch, index: int) -> None:
        torch.cuda.set_sync_debug_mode("warn" if index == 5 else "default")


def check_syncs(setup: Setup) -> Iterator[Row]:
    """Host–device synchronisations in one training step."""
    for cached in (False, True):
        training = TrainingConfig(chunk_tokens=2048, cached_gradients=cached)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(
                build_model("nano"),
                batches(8, 64),
                [WatchSyncs()],
                training,
                accelerator="cuda",
                precision="bf16-mixed",
            )
        waits = [item for item in caught if "synchronizing CUDA operation" in str(item.message)]
        counts = Counter(
            f"{Path(item.filename).parent.name}/{Path(item.filename).name}:{item.lineno}" for item in waits
        )
        where = ", ".join(f"{count} × {name}" for name, count in counts.most_common())
        yield Row(f"synchronisations per step{', cached gradients' if cached else ''}", f"{len(waits)}: {where}")


def measure_step(
    setup: Setup, model: CLVPModel, name: str, callbacks: Sequence[L.Callback] = (), **training: Any
) -> Row:
    """One row: speed, model FLOPs utilisation and peak memory of a training step."""
    data, recorder = batches(*setup.pick((7, 256), (3, 4))), Recorder()
    reset_peak()
    settings = {"accelerator": setup.device, "precision": "bf16-mixed"}
    fit(model, data, [recorder, *callbacks], TrainingConfig(**training), **settings)
    flops = statistics.mean(Throughput(model).flops(host_lengths(rows)) for rows in data)
    speed = f"{len(data[0]['input_ids']) / recorder.step:.0f} pairs/s, {recorder.step * 1e3:.0f} ms per step"
    peak = peak_flops(torch.cuda.get_device_name(), torch.bfloat16) if setup.device == "cuda" else None
    mfu = f"MFU {flops / recorder.step / peak:.1%}" if peak else "MFU unknown"
    finite = all(loss == loss for loss in recorder.losses)
    return Row(name, f"{speed}, {mfu}, {peak_gib():.1f} GiB", finite)


def check_full_size(setup: Setup) -> Iterator[Row]:
    """The published CLVP, 256 pairs, bf16-mixed."""
    model = build_model(setup.pick("full", "nano"))
    variants = product(setup.pick((16384, 32768, 65536), (512,)), (False, True), (False, True))
    for chunk_tokens, cached, packed in variants:
        name = (
            f"step, chunk_tokens {chunk_tokens}{', cached gradients' if cached else ''}{', packed' if packed else ''}"
        )
        settings = {"chunk_tokens": chunk_tokens, "cached_gradients": cached, "packed": packed}
        yield measure_step(setup, model, name, **settings)
    yield measure_step(setup, model, "step, EMA", [EMA()])


def check_compile(setup: Setup) -> Iterator[Row]:
    start, model = time.perf_counter(), build_model(setup.pick("full", "nano"))
    yield measure_step(setup, model, "step, compiled", compile=True)
    yield Row("compilation, included in seven steps", f"{time.perf_counter() - start:.0f} s")


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def run_rank(setup: Setup, rank: int) -> None:
    """One of two processes that share a device: prints its losses of its share of each batch."""
    data, recorder = batches(5, setup.pick(64, 8)), Recorder()
    data = [{name: values[rank::2] for name, values in rows.items()} for rows in data]
    strategy = DDPStrategy(process_group_backend="gloo")  # NCCL refuses two ranks on one card
    training = TrainingConfig(chunk_tokens=2048, cached_gradients=True)
    fit(build_model("nano"), data, [recorder], training, accelerator=setup.device, num_nodes=2, strategy=strategy)
    print(json.dumps(recorder.losses))


def check_ddp(setup: Setup) -> Iterator[Row]:
    """Two DDP processes on one device give the losses of one process with the same global batch."""
    recorder, training = Recorder(), TrainingConfig(chunk_tokens=2048)
    fit(build_model("nano"), batches(5, setup.pick(64, 8)), [recorder], training, accelerator=setup.device)
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "LOCAL_RANK": "0"}
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "gpu_check.py"),
        *(["--tiny"] if setup.tiny else []),
        f"--device={setup.device}",
        "--rank",
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([*command, str(rank)], env={**os.environ, **common, "NODE_RANK": str(rank)}, **pipes)
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=90) for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        print("\n".join(stderr for _, stderr in outputs), file=sys.stderr)
        yield Row("two gloo processes on one device", f"skipped: {outputs[0][1].strip().splitlines()[-1][:200]}")
        return
    losses = zip(*(json.loads(stdout.splitlines()[-1]) for stdout, _ in outputs))
    error = max(abs(statistics.mean(both) - one) for both, one in zip(losses, recorder.losses, strict=True))
    yield Row("losses, two gloo processes on one device = one process", f"largest difference {error:.1e}", error < 2e-3)
