"""Speech codes per second of this package, transformers' Clvp, and tortoise-tts 3.0.0, with equal weights and texts.

    python benchmarks/generate.py                                    # nano, 16 candidates per text
    python benchmarks/generate.py --size full --texts 2 --max-codes 16
    python benchmarks/generate.py --candidates 1 --batch-size 16   # mixed lengths: the others take one text at a time

Each implementation runs in a separate process, one after the other. transformers receives explicit positions because
its `generate` derives wrong ones from embeddings. Neither of the others can batch texts of different lengths, so each
generates all candidates of one text at a time. tortoise-tts and the libraries that it pins are fetched from the package
index once.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import ClvpConfig, ClvpModelForConditionalGeneration

from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio
from clvp_train.tortoise.autoregressive import AutoRegressive
from clvp_train.tortoise.original_checkpoint import original_key
from clvp_train.tortoise.parts import TortoiseParts

ROOT = Path(__file__).parents[1]
NANO = ROOT / "data" / "nano"
sys.path.append(str(ROOT / "tests" / "parity"))
import tortoise_reference  # noqa: E402

OURS, THEIRS = "clvp_train", "transformers"
TORTOISE = {"tortoise-tts, cache": True, "tortoise-tts, default": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", choices=("nano", "full"), default="nano", help="full: random weights of the published shape"
    )
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-codes", type=int, default=160)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="tortoise-tts: autocast")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=ROOT / ".pytest_cache" / "d" / "references")
    parser.add_argument("--without", action="append", default=[], help="skip an implementation")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.only:
        print(json.dumps(run_ours(args) if args.only == OURS else run_transformers(args)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        args.folder = prepare(args.size, Path(scratch))
        rows: dict[str, dict[str, float]] = {}
        for name in (OURS, THEIRS, *TORTOISE):
            if name not in args.without:
                print(f"{name} …", file=sys.stderr)
                rows[name] = run_tortoise(args, TORTOISE[name]) if name in TORTOISE else run_in_process(args, name)
    report(args, rows)


def prepare(size: str, scratch: Path) -> Path:
    """Returns a folder with the weights in the formats of transformers and of tortoise-tts (`autoregressive.pth`)."""
    tortoise = FrozenTortoise.from_pretrained(NANO / "tortoise")
    if size == "full":
        torch.manual_seed(0)
        parts = TortoiseParts(AutoRegressive(ClvpConfig()), tortoise.tokenizer, tortoise.feature_extractor)
        tortoise = FrozenTortoise(parts, scratch)
    tortoise.save_pretrained(scratch / "tortoise")
    torch.save(to_original(tortoise.autoregressive), scratch / "tortoise" / "autoregressive.pth")
    return scratch / "tortoise"


def to_original(model: AutoRegressive) -> dict[str, torch.Tensor]:
    """The weights by the names of tortoise-tts, except the conditioning encoder, whose latent is an input here."""
    state = model.state_dict().items()
    original = {original_key(key): tensor for key, tensor in state if not key.startswith("conditioning_encoder.")}
    vocab_size, width = model.text_embedding.weight.shape
    return original | {"text_head.weight": torch.zeros(vocab_size, width), "text_head.bias": torch.zeros(vocab_size)}


def inputs(args: argparse.Namespace) -> tuple[FrozenTortoise, list[list[int]], torch.Tensor]:
    sampling = {"max_codes": args.max_codes}
    tortoise = FrozenTortoise.from_pretrained(args.folder, sampling=sampling, device=args.device, dtype=args.dtype)
    sentences = (NANO / "sentences.txt").read_text().splitlines()
    texts = [tortoise.tokenize(sentence) for sentence in sentences[:: len(sentences) // args.texts][: args.texts]]
    return tortoise, texts, tortoise.conditioning_latent([load_audio(NANO / "voices" / "slt" / "1.flac")])


def run_in_process(args: argparse.Namespace, name: str) -> dict[str, float]:
    names = ("size", "texts", "candidates", "batch_size", "max_codes", "dtype", "device", "threads", "folder")
    settings = [f"--{key.replace('_', '-')}={getattr(args, key)}" for key in names]
    done = subprocess.run([sys.executable, __file__, *settings, "--only", name], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def run_ours(args: argparse.Namespace) -> dict[str, float]:
    tortoise, texts, latent = inputs(args)
    tortoise.candidates(texts[:1], latent, args.candidates, batch_size=args.batch_size)
    started = time.perf_counter()
    seeds = list(range(1, len(texts) + 1))
    drawn = tortoise.candidates(texts, latent, args.candidates, seeds, batch_size=args.batch_size)
    return measured(
        args,
        time.perf_counter() - started,
        sum(len(candidate.codes) for candidates in drawn for candidate in candidates),
    )


@torch.inference_mode()
def run_transformers(args: argparse.Namespace) -> dict[str, float]:
    tortoise, texts, latent = inputs(args)
    transformers.logging.set_verbosity_error()
    dtype = getattr(torch, args.dtype)
    model = ClvpModelForConditionalGeneration.from_pretrained(args.folder, dtype=dtype).to(args.device).eval()
    stop, sampling = tortoise.autoregressive.stop_speech, tortoise.sampling
    silence = torch.zeros(1, 80, 4, dtype=dtype, device=args.device)

    def draw(text: list[int]) -> int:
        prefix = model.conditioning_encoder(silence, input_ids=torch.tensor([[*text, 0]], device=args.device))
        prefix[:, 0] = latent.to(dtype)
        codes = model.speech_decoder_model.generate(
            conditioning_embeds=prefix.repeat(args.candidates, 1, 1),
            position_ids=torch.arange(prefix.shape[1] + 1, device=args.device).repeat(args.candidates, 1),
            do_sample=True,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty,
            max_new_tokens=args.max_codes,
            eos_token_id=stop,
            pad_token_id=stop,
        )
        return int((codes[:, 1:] != stop).sum())

    torch.manual_seed(0)
    draw(texts[0])
    started = time.perf_counter()
    num_codes = sum(draw(text) for text in texts)
    return measured(args, time.perf_counter() - started, num_codes)


def measured(args: argparse.Namespace, seconds: float, num_codes: int) -> dict[str, float]:
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cuda = torch.cuda.max_memory_allocated() / 2**20 if args.device.startswith("cuda") else 0.0
    return {"seconds": seconds, "codes": num_codes, "mib": cuda or rss}


def run_tortoise(args: argparse.Namespace, kv_cache: bool) -> dict[str, float]:
    tortoise, texts, latent = inputs(args)
    model, sampling = tortoise.autoregressive, tortoise.sampling
    shape = {
        "max_mel_tokens": model.speech_position.num_embeddings - 4,
        "max_text_tokens": model.text_position.num_embeddings - 2,
        "max_conditioning_inputs": 2,
        "layers": len(model.blocks),
        "model_dim": model.head.in_features,
        "heads": model.num_heads,
        "number_text_tokens": model.start_text,
        "start_text_token": model.start_text,
        "number_mel_codes": model.head.out_features,
        "start_mel_token": model.start_speech,
        "stop_mel_token": model.stop_speech,
    }
    settings = {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "repetition_penalty": sampling.repetition_penalty,
        "num_return_sequences": args.candidates,
        "max_generate_length": args.max_codes,
    }
    request: dict[str, Any] = {"shape": shape, "generate": settings, "kv_cache": kv_cache, "threads": args.threads}
    request |= {"weights": str(args.folder / "autoregressive.pth"), "device": args.device}
    request |= {"autocast": None if args.dtype == "float32" else args.dtype}
    answer = tortoise_reference.generate(args.cache, [texts[0], *texts], latent, **request)
    num_codes = sum(code != model.stop_speech for rows in answer["codes"][1:] for row in rows for code in row)
    memory = answer["peak_cuda_mib"] or answer["peak_rss_mib"]
    return {"seconds": sum(answer["seconds"][1:]), "codes": num_codes, "mib": memory}


def report(args: argparse.Namespace, rows: dict[str, dict[str, float]]) -> None:
    speeds = {name: row["codes"] / row["seconds"] for name, row in rows.items()}
    where = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"{args.threads} CPU threads"
    print(
        f"{args.size}, {args.dtype}, {args.texts} texts × {args.candidates} candidates of at most {args.max_codes} "
        f"codes, batch {args.batch_size}, {where}, torch {torch.__version__}, transformers {transformers.__version__}\n"
    )
    print("| | codes | seconds | codes/s | speed-up of clvp_train | peak MiB |\n| --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        ratio = f"{speeds[OURS] / speeds[name]:.2f}" if OURS in speeds else ""
        print(f"| {name} | {row['codes']} | {row['seconds']:.1f} | {speeds[name]:.0f} | {ratio} | {row['mib']:.0f} |")


if __name__ == "__main__":
    main()
