"""Checks of `gpu_check.py`: speech codes that Tortoise draws, and those of its DVAE."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from gpu_setup import NANO, ROOT, Row, Setup, peak_gib, reset_peak
from transformers import ClvpConfig

from clvp_train.tortoise import FrozenTortoise, Sampling, TortoiseParts
from clvp_train.tortoise.audio import load_audio
from clvp_train.tortoise.autoregressive import AutoRegressive
from clvp_train.tortoise.decoder import Decoder


@contextmanager
def timed_captures() -> Iterator[list[float]]:
    """Yields a list that receives the seconds of each CUDA graph that a decoder captures."""
    seconds: list[float] = []
    capture = Decoder._capture

    def timed(decoder: Decoder, *args: Any) -> Any:
        start = time.perf_counter()
        graph = capture(decoder, *args)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        return graph

    with mock.patch.object(Decoder, "_capture", timed):
        yield seconds


def nano_texts(tortoise: FrozenTortoise, count: int) -> list[list[int]]:
    return [tortoise.tokenize(line) for line in (NANO / "sentences.txt").read_text().splitlines()[:count]]


def check_codes(setup: Setup) -> Iterator[Row]:
    """The bundled Tortoise draws on the GPU what it draws on the CPU. bfloat16 rounds differently, so only its mean
    log-probability can be compared."""
    clip, size = [load_audio(NANO / "voices" / "slt" / "1.flac")], setup.pick(16, 2)
    cpu = FrozenTortoise.from_pretrained(NANO / "tortoise")
    texts, latent = nano_texts(cpu, size), cpu.conditioning_latent(clip)
    expected = [item for items in cpu.candidates(texts, latent, size) for item in items]
    for dtype in ("float32", "bfloat16"):
        tortoise = FrozenTortoise.from_pretrained(NANO / "tortoise", device=setup.device, dtype=dtype)
        with timed_captures() as captures:
            drawn = [item for items in tortoise.candidates(texts, latent, size) for item in items]
        if captures:
            figure = f"{len(captures)} graphs, {sum(captures):.2f} s, longest {max(captures):.2f} s"
            yield Row(f"CUDA graphs captured, {dtype}", figure, True)
        share = statistics.mean(a.codes == b.codes for a, b in zip(drawn, expected))
        means = [
            sum(i.log_probability for i in items) / sum(len(i.codes) + 1 for i in items) for items in (drawn, expected)
        ]
        figure = (
            f"{share:.1%} of {len(expected)} candidates; log-probability per code {means[0]:.4f}, CPU {means[1]:.4f}"
        )
        right = share >= 0.9 if dtype == "float32" else abs(means[0] - means[1]) < 0.15
        yield Row(f"nano codes, {setup.device} {dtype} = CPU float32", figure, right)
        own = tortoise.conditioning_latent(clip)
        alone = [item for items in tortoise.candidates(texts, latent, size, batch_size=size) for item in items]
        share = statistics.mean(a.codes == b.codes for a, b in zip(drawn, alone))
        right = share >= 0.9 if dtype == "float32" else None
        yield Row(f"nano codes, batch {len(expected)} = batch {size}, {dtype}", f"{share:.1%} of candidates", right)
        error = ((own.cpu() - latent).norm() / latent.norm()).item()
        yield Row(f"conditioning latent, {dtype}", f"relative error {error:.1e}", error < 0.05)


def check_autoregressive(setup: Setup) -> Iterator[Row]:
    """Speed of an AR of the published shape with random weights, against the time to read weights and cache once a step."""
    nano = FrozenTortoise.from_pretrained(NANO / "tortoise")
    torch.manual_seed(0)
    with torch.device(setup.device):
        model = AutoRegressive(setup.pick(ClvpConfig(), nano.autoregressive.config)).to(torch.bfloat16)
    source = torch.empty(setup.pick(2**30, 2**20), dtype=torch.uint8, device=setup.device)
    bandwidth = 2 * len(source) / setup.seconds(source.clone)
    max_codes, width = setup.pick(500, 16), model.head.in_features
    parts = TortoiseParts(model, nano.tokenizer, nano.feature_extractor, None, Sampling(max_codes=max_codes))
    weights = sum(parameter.nbytes for module in (model.blocks, model.head) for parameter in module.parameters())
    for size in setup.pick((64, 256), (4,)):
        reset_peak()
        tortoise = FrozenTortoise(parts, ROOT)
        texts = [torch.randint(1, 200, (60,)).tolist() for _ in range(size)]
        with timed_captures() as captures:
            tortoise.candidates(texts, torch.randn(width), 1, batch_size=size)
        start = time.perf_counter()
        drawn = [items[0] for items in tortoise.candidates(texts, torch.randn(width), 1, 1, batch_size=size)]
        took, codes = time.perf_counter() - start, sum(len(item.codes) for item in drawn)
        step = took / max(len(item.codes) for item in drawn)
        floor = (weights + codes / max_codes * (64 + max_codes / 2) * 4 * len(model.blocks) * width) / bandwidth
        speed = f"{codes / took:.0f} codes/s, {step * 1e3:.2f} ms per step, floor {floor * 1e3:.2f} ms ({step / floor:.1f} ×)"
        graphs = f"{len(captures)} graphs in {sum(captures):.1f} s"
        yield Row(
            f"AR {len(model.blocks)} × {width}, bfloat16, batch {size}", f"{speed}, {peak_gib():.1f} GiB, {graphs}"
        )
        del tortoise
    yield Row("memory bandwidth, device to device", f"{bandwidth / 1e12:.2f} TB/s")


def check_dvae(setup: Setup) -> Iterator[Row]:
    """Codes of recordings, with and without TF32 in convolutions and products."""
    clips = [load_audio(file) for file in sorted((NANO / "voices").glob("*/*.flac"))]
    expected = [code for row in FrozenTortoise.from_pretrained(NANO / "tortoise").speech_codes(clips) for code in row]
    tortoise = FrozenTortoise.from_pretrained(NANO / "tortoise", device=setup.device)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    for name, flags in {"off": (False, False), "torch's default": before, "on": (True, True)}.items():
        matmul.allow_tf32, cudnn.allow_tf32 = flags
        codes = [code for row in tortoise.speech_codes(clips) for code in row]
        share = statistics.mean(a == b for a, b in zip(codes, expected, strict=True))
        yield Row(
            f"DVAE codes = CPU, TF32 {name}",
            f"{share:.2%} of {len(codes)}",
            share >= (0.999 if name == "off" else 0.98),
        )
    matmul.allow_tf32, cudnn.allow_tf32 = before
