"""One training step (forward, loss, backward, clipping, AdamW) of this package and of other implementations.

    python benchmarks/train_step.py                     # the nano model, lengths of LJSpeech and LibriTTS
    python benchmarks/train_step.py --size full --batch-size 8 --steps 2
    python benchmarks/train_step.py --grow              # peak memory at 1, 4, and 16 times the batch

All start from the same weights and take the same batches in turn, without dropout, so that a slow phase of the machine
affects all; the table shows medians, with `--threads 1` of the time of the processor. tortoise-tts and its missing libraries
are fetched from the package index once.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path

import torch
from lengths import MAX_SPEECH, MAX_TEXT, batch
from torch import nn
from torch.nn import functional
from transformers import ClvpConfig, ClvpModelForConditionalGeneration

from clvp_train.data.collate import Batch
from clvp_train.inference.chunked_encoding import computed_positions
from clvp_train.models import CLVPConfig, CLVPModel
from clvp_train.models.convert_transformers import transformers_state_dict
from clvp_train.training import CLVPModule, OptimConfig, TrainingConfig
from clvp_train.training.optim import build_optimizer
from clvp_train.training.throughput import Throughput, peak_flops

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "parity"))
import tortoise_reference  # noqa: E402

SIZES = {
    "nano": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 2},
    "full": {"hidden_size": 768, "intermediate_size": 1536, "num_hidden_layers": 20, "num_attention_heads": 12},
}
TOWERS = (("text", "input"), ("speech", "speech"))  # names of lengths and of ids in a batch
Loss = Callable[[Batch], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="nano")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--chunk-tokens", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=5, help="timed steps, after one for warm-up")
    parser.add_argument("--corpus", choices=("ljspeech", "libritts"), action="append")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16: autocast")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=ROOT / ".pytest_cache" / "d" / "references")
    parser.add_argument(
        "--without", action="append", default=[], help="skip implementations whose names start with this"
    )
    parser.add_argument("--grow", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.grow:
        grow(args)
        return
    for corpus in args.corpus or ("ljspeech", "libritts"):
        compare(args, corpus)


def model_of(args: argparse.Namespace) -> CLVPModel:
    torch.manual_seed(0)
    shape = SIZES[args.size] | {"dropout": 0.0, "attention_dropout": 0.0}
    towers = {"text_config": {**shape, "vocab_size": 256}, "speech_config": {**shape, "vocab_size": 8192}}
    return CLVPModel(CLVPConfig(**towers, projection_dim=shape["hidden_size"])).to(args.device).train()


def ours(args: argparse.Namespace, chunk_tokens: int, cached: bool = False) -> tuple[nn.Module, Loss]:
    module = CLVPModule(model_of(args), training=TrainingConfig(chunk_tokens, cached_gradients=cached)).train()

    def loss(rows: Batch) -> torch.Tensor:
        text_BD, speech_BD = module.batch_encoder.embed(rows)
        return module.loss(text_BD, speech_BD, module.model.logit_scale).loss

    return module, loss


def theirs(args: argparse.Namespace) -> tuple[nn.Module, Loss]:
    """transformers' two encoders with the same loss. They pool over padding, which does not affect the time."""
    model = model_of(args)
    for tower in (model.config.text_config, model.config.speech_config):
        tower.rms_norm = "transformers"  # same cost
    tower_config = {"hidden_size": model.config.projection_dim, "projection_dim": model.config.projection_dim}
    tower_config |= {
        "intermediate_size": SIZES[args.size]["intermediate_size"],
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }
    tower_config |= {name: SIZES[args.size][name] for name in ("num_hidden_layers", "num_attention_heads")}
    decoder = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "num_mel_attn_blocks": 1}
    config = ClvpConfig(
        text_config=tower_config, speech_config={**tower_config, "vocab_size": 8192}, decoder_config=decoder
    )
    config.projection_dim = model.config.projection_dim
    full = ClvpModelForConditionalGeneration(config)
    missing, unexpected = full.load_state_dict(transformers_state_dict(model)[1], strict=False)
    assert not unexpected and all("decoder" in name or "conditioning" in name for name in missing), (
        missing,
        unexpected,
    )
    both = nn.ModuleList([full.text_encoder_model, full.speech_encoder_model]).to(args.device).train()
    both.register_parameter("logit_scale", full.logit_scale)

    def loss(rows: Batch) -> torch.Tensor:
        text = both[0](input_ids=rows["input_ids"], attention_mask=rows["text_attention_mask"]).embeds
        speech = both[1](input_ids=rows["speech_ids"], attention_mask=rows["speech_attention_mask"]).embeds
        text, speech = (functional.normalize(embeds.float(), dim=-1) for embeds in (text, speech))
        logits = both.logit_scale.exp() * text @ speech.T
        own = torch.arange(len(logits), device=logits.device)
        return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2

    return both, loss


def tortoise(args: argparse.Namespace) -> tuple[nn.Module, Loss]:
    """The model class of tortoise-tts with its own loss."""
    for path in (tortoise_reference.source(args.cache), tortoise_reference.packages(args.cache)):
        sys.path.append(str(path))
    stub = types.ModuleType("rotary_embedding_torch")  # imported by an older transformer that is not used
    stub.RotaryEmbedding = stub.broadcat = None
    sys.modules.setdefault(stub.__name__, stub)
    from tortoise.models.clvp import CLVP

    shape, model = SIZES[args.size], model_of(args)
    width, heads, depth = shape["hidden_size"], shape["num_attention_heads"], shape["num_hidden_layers"]
    widths = {"dim_text": width, "dim_speech": width, "dim_latent": width, "num_text_tokens": 256}
    sizes = {"text_enc_depth": depth, "speech_enc_depth": depth, "text_heads": heads, "speech_heads": heads}
    lengths = {"text_seq_len": MAX_TEXT, "speech_seq_len": MAX_SPEECH, "num_speech_tokens": 8192}
    peer = CLVP(**widths, **sizes, **lengths, use_xformers=True)
    with tempfile.TemporaryDirectory() as scratch:
        model.save_tortoise(Path(scratch, "clvp2.pth"))
        peer.load_state_dict(torch.load(Path(scratch, "clvp2.pth"), weights_only=True))
    for child in peer.modules():
        if isinstance(child, nn.Dropout):
            child.p = 0.0
    peer = peer.to(args.device).train()
    return peer, lambda rows: peer(rows["input_ids"], rows["speech_ids"], return_loss=True)


def padded(rows: Batch) -> Batch:
    """Pads to the lengths that tortoise-tts builds its CLVP for."""
    found: Batch = {}
    for name, tensor in tensors(rows).items():
        limit = MAX_TEXT if name in ("input_ids", "text_attention_mask") else MAX_SPEECH
        found[name] = functional.pad(tensor[:, :limit], (0, max(0, limit - tensor.shape[1])))
    return found


def tensors(rows: Batch, device: str = "cpu") -> Batch:
    """Those of a batch that a model takes, on the device."""
    return {name: value.to(device) for name, value in rows.items() if isinstance(value, torch.Tensor)}


def implementations(args: argparse.Namespace) -> dict[str, tuple[Callable[[], tuple[nn.Module, Loss]], bool]]:
    """For each implementation, a factory, and whether its batches are padded to the fixed lengths."""
    found = {
        "clvp_train": (lambda: ours(args, args.chunk_tokens), False),
        "clvp_train, cached gradients": (lambda: ours(args, args.chunk_tokens, cached=True), False),
        "(a) our model, padded to the longest": (lambda: ours(args, 0), False),
        "(b) our model, padded to 350 and 430": (lambda: ours(args, 0), True),
        "(c) transformers, padded to the longest": (lambda: theirs(args), False),
        "(c) transformers, padded to 350 and 430": (lambda: theirs(args), True),
        "(d) tortoise-tts, padded to 350 and 430": (lambda: tortoise(args), True),
    }
    return {name: how for name, how in found.items() if not any(name.startswith(out) for out in args.without)}


def stepper(args: argparse.Namespace, model: nn.Module, loss: Loss) -> Callable[[Batch], tuple[float, float]]:
    """Returns a function that runs one step on a batch and returns its loss and duration in seconds."""
    optimizer = build_optimizer(model, OptimConfig(lr=1e-5))
    clock = time.process_time if (args.device, args.threads) == ("cpu", 1) else time.perf_counter

    def step(rows: Batch) -> tuple[float, float]:
        start = clock()
        with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.dtype == "bfloat16"):
            value = loss(rows)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return value.item(), clock() - start  # `item` synchronises with the device

    return step


def compare(args: argparse.Namespace, corpus: str) -> None:
    made = {name: (*make(), fixed) for name, (make, fixed) in implementations(args).items()}
    steps = {name: (stepper(args, model, loss), fixed) for name, (model, loss, fixed) in made.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    batches = [batch(corpus, args.batch_size, (256, 8192), seed=number) for number in range(args.steps + 1)]
    for number, rows in enumerate(batches):
        rows = rows | tensors(rows, args.device)
        for name, (step, fixed) in steps.items():
            value, took = step(padded(rows) if fixed else rows)
            print(f"{corpus}, step {number}, {name}: loss {value:.4f}, {took:.2f} s", file=sys.stderr)
            if number:
                seconds[name].append(took)
    report(args, corpus, {name: statistics.median(took) for name, took in seconds.items()}, batches[1:])


def report(args: argparse.Namespace, corpus: str, seconds: dict[str, float], batches: list[Batch]) -> None:
    towers = [(rows[f"{kind}_lengths"], rows[f"{name}_ids"].shape[1]) for rows in batches for kind, name in TOWERS]
    tokens = sum(int(sum(lengths)) for lengths, _ in towers) / len(batches)
    computed = sum(computed_positions(lengths, args.chunk_tokens, width) for lengths, width in towers) / len(batches)
    longest = args.batch_size * sum(width for _, width in towers) / len(batches)
    where = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"{args.threads} CPU threads"
    print(
        f"\n{corpus}: {args.size}, {args.dtype}, batch {args.batch_size}, chunks of {args.chunk_tokens} tokens, {where}; "
        f"padding {1 - tokens / computed:.1%}; padded to the longest {1 - tokens / longest:.1%}; padded to 350 and 430 "
        f"{1 - tokens / (args.batch_size * (MAX_TEXT + MAX_SPEECH)):.1%}\n\n"
        "| | seconds | pairs/s | tokens/s | speed-up of clvp_train |\n| --- | --- | --- | --- | --- |"
    )
    for name, took in seconds.items():
        ratio = took / seconds["clvp_train"]
        print(f"| {name} | {took:.2f} | {args.batch_size / took:.0f} | {tokens / took:.0f} | {ratio:.2f} |")
    peak = peak_flops(torch.cuda.get_device_name(), getattr(torch, args.dtype)) if "cuda" in args.device else None
    if peak:
        flops = Throughput(model_of(args)).flops([lengths for lengths, _ in towers[-2:]])
        print(f"\nMFU {flops / seconds['clvp_train'] / peak:.1%}, {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def grow(args: argparse.Namespace) -> None:
    if args.only:
        model, loss = ours(args, args.chunk_tokens, cached=args.only == "cached")
        step = stepper(args, model, loss)
        for number in range(2):
            rows = batch("ljspeech", args.batch_size, (256, 8192), number)
            step(rows | tensors(rows, args.device))
        peak = torch.cuda.max_memory_allocated() / 1024 if args.device.startswith("cuda") else None
        print(round((peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024))
        return
    print("| pairs | plain, peak MiB | cached gradients, peak MiB |\n| --- | --- | --- |")
    for times in (1, 4, 16):
        row = []
        for kind in ("plain", "cached"):
            names = ("size", "chunk_tokens", "dtype", "device", "threads")
            settings = [f"--{name.replace('_', '-')}={getattr(args, name)}" for name in names]
            settings += ["--grow", f"--batch-size={times * args.batch_size}", f"--only={kind}"]
            done = subprocess.run([sys.executable, __file__, *settings], capture_output=True, text=True)
            row.append(done.stdout.split()[-1] if done.returncode == 0 else "does not fit")
        print(f"| {times * args.batch_size} | {row[0]} | {row[1]} |", flush=True)


if __name__ == "__main__":
    main()
