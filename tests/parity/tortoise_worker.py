"""Generates speech codes, or scores them, with tortoise-tts 3.0.0 under the transformers 4.31.0 that it pins.

    python tortoise_worker.py SOURCE PACKAGES REQUEST.json ANSWER.json

SOURCE contains `tortoise/`, PACKAGES the pinned libraries; torch is the one of the interpreter. Texts are generated one after
another, as `TextToSpeech.tts` does, which has no batches of texts.

Request:
    weights: file of `UnifiedVoice`'s state dict
    shape: arguments of `UnifiedVoice`; default PUBLISHED
    texts: a list of token ids for each text
    latent: the voice, a list of `model_dim` numbers
    kv_cache: as in `TextToSpeech`; default true
    generate: arguments of `inference_speech`, such as do_sample, top_p, num_return_sequences, max_generate_length
    seed, threads, device: default 0, torch's own, "cpu"
    autocast: null, or a dtype; "float16" on a GPU is `TextToSpeech(half=True)`, which keeps the weights in float32 too
Answer:
    codes: for each text the rows that `inference_speech` returned, as they are
    seconds: for each text the time of `inference_speech` alone
    peak_rss_mib: the most memory that the process has held, weights and imports included
    peak_cuda_mib: the same of torch's CUDA allocator, 0 on a CPU
    versions: of torch and transformers

A request with `clvp` asks for scores instead:
    clvp: file of `CLVP`'s state dict
    shape: arguments of `CLVP`
    texts: a list of token ids for each text
    candidates: for each text a list of candidates, each a list of codes that ends with the stop token if the AR drew one
    max_codes: `max_mel_tokens` of `TextToSpeech.tts`
Answer:
    scores: for each text those of its candidates
"""

import ast
import json
import resource
import sys
import time
import types
from pathlib import Path
from typing import Any

PUBLISHED = {
    "max_mel_tokens": 604,
    "max_text_tokens": 402,
    "max_conditioning_inputs": 2,
    "layers": 30,
    "model_dim": 1024,
    "heads": 16,
    "number_text_tokens": 255,
    "start_text_token": 255,
}


def generate(request: dict[str, Any]) -> dict[str, Any]:
    import torch
    import transformers
    from tortoise.models.autoregressive import UnifiedVoice

    if threads := request.get("threads"):
        torch.set_num_threads(threads)
    torch.manual_seed(request.get("seed", 0))
    device = torch.device(request.get("device", "cpu"))
    dtype = getattr(torch, request.get("autocast") or "float32")
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    model = UnifiedVoice(**request.get("shape", PUBLISHED), checkpointing=False).eval()
    # not strict, as in `TextToSpeech`: published files hold causal masks that GPT-2 no longer stores
    missing = model.load_state_dict(torch.load(request["weights"], weights_only=True, mmap=True), strict=False)[0]
    # the voice's latent is given
    missing = [key for key in missing if not key.startswith("conditioning_encoder.")]
    assert not missing, f"{request['weights']} lacks {missing[:3]}"
    model.post_init_gpt2_config(kv_cache=request.get("kv_cache", True))
    model.to(device)
    latent = torch.tensor([request["latent"]], device=device)
    codes, seconds = [], []
    for text in request["texts"]:
        # `tts` itself appends a 0 before `inference_speech` appends another
        ids = torch.tensor([[*text, 0]], device=device)
        _finish(device)
        start = time.perf_counter()
        with torch.no_grad(), autocast:
            rows = model.inference_speech(latent, ids, **request.get("generate", {}))
        _finish(device)
        seconds.append(time.perf_counter() - start)
        codes.append(rows.tolist())
    return {
        "codes": codes,
        "seconds": seconds,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_cuda_mib": torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else 0.0,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def score(request: dict[str, Any]) -> dict[str, Any]:
    """As `TextToSpeech.tts` does: a 0 after the text, codes padded with stop tokens that become silence, no masks."""
    import torch
    from torch.nn import functional

    # tortoise/models/clvp.py imports its older transformer too, which asks for a package that nothing here runs
    stub: Any = types.ModuleType("rotary_embedding_torch")
    stub.RotaryEmbedding = stub.broadcat = None
    sys.modules["rotary_embedding_torch"] = stub
    import tortoise.models
    from tortoise.models.clvp import CLVP

    # of api.py this function alone, as its imports fetch models
    api = ast.parse((Path(tortoise.models.__path__[0]).parent / "api.py").read_text())
    name = "fix_autoregressive_output"
    wanted = [node for node in api.body if isinstance(node, ast.FunctionDef) and node.name == name]
    scope: dict[str, Any] = {"torch": torch}
    exec(compile(ast.Module(wanted, []), "api.py", "exec"), scope)

    model = CLVP(**request["shape"], use_xformers=True).eval()
    model.load_state_dict(torch.load(request["clvp"], weights_only=True), strict=True)
    stop, length, scores = 8193, request["max_codes"], []
    for text, candidates in zip(request["texts"], request["candidates"]):
        text_tokens = functional.pad(torch.tensor([text]), (0, 1))
        batch = torch.stack(
            [functional.pad(torch.tensor(codes), (0, length - len(codes)), value=stop) for codes in candidates]
        )
        for row in range(len(batch)):
            if (batch[row] == stop).any():  # else it only complains
                batch[row] = scope[name](batch[row], stop)
        with torch.no_grad():
            scores.append(model(text_tokens.repeat(len(batch), 1), batch, return_loss=False).tolist())
    return {"scores": scores}


def _finish(device: Any) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize()


if __name__ == "__main__":
    source, packages, asked, answered = sys.argv[1:]
    # the script's own folder gives way to the old libraries; tortoise-tts comes last
    sys.path[:1] = [packages]
    sys.path.append(source)
    # a newer tokenizers makes transformers 4.31.0 refuse to be imported; without any it does without
    sys.modules["tokenizers"] = None  # type: ignore[assignment]
    request = json.loads(Path(asked).read_text())
    Path(answered).write_text(json.dumps(score(request) if "clvp" in request else generate(request)))
