"""The AR of tortoise-tts 3.0.0 against ours: mel features, voice latents, logits of given codes, and the calm rule."""

import ast
import re
import sys
import types
from pathlib import Path

import pytest
import torch
from transformers import ClvpConfig

from clvp_train.tortoise.audio import fit_length, load_audio, log_mel
from clvp_train.tortoise.autoregressive import AutoRegressive
from clvp_train.tortoise.calm import write_calm

pytestmark = pytest.mark.tortoise
NANO = Path(__file__).parents[2] / "data" / "nano"
WIDTH, LAYERS, HEADS, START, STOP = 64, 2, 2, 96, 97
RENAMED = {
    r"^conditioning_encoder\.init\.": "conditioning_encoder.mel_conv.",
    r"^conditioning_encoder\.attn\.(\d+)\.norm\.": r"conditioning_encoder.group_norms.\1.",
    r"^conditioning_encoder\.attn\.(\d+)\.proj_out\.": r"conditioning_encoder.mel_attn_blocks.\1.out_proj.",
    r"^conditioning_encoder\.attn\.(\d+)\.qkv\.": r"conditioning_encoder.mel_attn_blocks.\1.qkv.",
    r"^text_pos_embedding\.emb\.": "text_position.",
    r"^mel_pos_embedding\.emb\.": "speech_position.",
    r"^mel_embedding\.": "speech_embedding.",
    r"^gpt\.h\.": "blocks.",
    r"^gpt\.ln_f\.": "layer_norm.",
    r"^mel_head\.": "head.",
}


@pytest.fixture(scope="module")
def clips():
    return [load_audio(NANO / "voices" / voice / "1.flac") for voice in ("rms", "awb", "slt")]


@pytest.fixture(scope="module")
def reference(tortoise_source, order_one):
    # what transformers 5 no longer has, used for spreading over devices and for a sampling that Tortoise leaves off
    parallel = types.ModuleType("transformers.utils.model_parallel_utils")
    parallel.get_device_map = parallel.assert_device_map = None
    typical = types.ModuleType("tortoise.utils.typical_sampling")
    typical.TypicalLogitsWarper = None
    for stub in (parallel, typical):
        sys.modules.setdefault(stub.__name__, stub)
    from tortoise.models.autoregressive import UnifiedVoice

    ids = {"number_mel_codes": STOP + 1, "start_mel_token": START, "stop_mel_token": STOP}
    text = {"number_text_tokens": 255, "start_text_token": 255, "max_text_tokens": 60}
    shape = {"layers": LAYERS, "model_dim": WIDTH, "heads": HEADS, "max_mel_tokens": 100}
    model = UnifiedVoice(**ids, **text, **shape, checkpointing=False)
    order_one(model)
    with torch.no_grad():
        for block in model.conditioning_encoder.attn:
            block.proj_out.weight.normal_(std=WIDTH**-0.5)  # zero in a fresh model
    return model.eval()


@pytest.fixture(scope="module")
def ours(reference):
    """Our AR with the reference's weights."""
    state: dict[str, torch.Tensor] = {}
    for key, tensor in reference.state_dict().items():
        for pattern, name in RENAMED.items():
            key = re.sub(pattern, name, key)
        if ".qkv." in key:
            # theirs goes head by head, each with its query, key and value
            heads = tensor.squeeze(-1).unflatten(0, (HEADS, 3, WIDTH // HEADS))
            for part, name in enumerate("qkv"):
                state[key.replace("qkv", f"{name}_proj")] = heads[:, part].flatten(0, 1)
        elif not key.startswith("text_head."):
            state[key] = tensor.squeeze(-1) if "out_proj" in key else tensor
    decoder = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_mel_attn_blocks": len(reference.conditioning_encoder.attn),
        "vocab_size": STOP + 1,
        "bos_token_id": START,
        "eos_token_id": STOP,
        "max_text_tokens": reference.text_pos_embedding.emb.num_embeddings,
        "max_position_embeddings": reference.mel_pos_embedding.emb.num_embeddings,
    }
    model = AutoRegressive(ClvpConfig(text_config={"vocab_size": 256}, decoder_config=decoder), "trained")
    model.load_state_dict(state)
    return model.eval()


@torch.no_grad()
def test_voice_latents_of_clips(reference, ours, clips):
    mels = torch.stack([log_mel(fit_length(clip)) for clip in clips])
    expected = reference.get_conditioning(mels[None])
    torch.testing.assert_close(ours.conditioning_encoder(mels).mean(dim=0), expected[0], rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("text_length", "num_codes"), [(1, 1), (7, 30), (57, 99)])
def test_logits_of_given_codes_with_trained_positions(reference, ours, text_length, num_codes):
    draw = torch.Generator().manual_seed(num_codes)
    latents = torch.randn(2, WIDTH, generator=draw)
    texts = torch.randint(1, 255, (2, text_length), generator=draw)
    codes = torch.randint(0, START, (2, num_codes), generator=draw)
    # its `tts` appends one stop to the text, its `forward` another
    padded = torch.nn.functional.pad(texts, (0, 1))
    lengths = torch.tensor([text_length + 1] * 2), torch.tensor([num_codes * 1024] * 2)
    expected = reference(latents, padded, lengths[0], codes.clone(), lengths[1])[2].transpose(1, 2)

    prompt, _ = ours.prompt(latents, texts.tolist())
    x = torch.cat([prompt, ours.speech_vectors(codes, first=1)], dim=1)
    logits = ours.logits(x, torch.ones(x.shape[1], x.shape[1]).tril() > 0)[:, prompt.shape[1] - 1 :]
    torch.testing.assert_close(logits, expected[:, : num_codes + 1], rtol=0, atol=2e-4)
    assert logits.std() > 0.5


def test_mel_features(tortoise_source, clips):
    from tortoise.models.arch_util import TorchMelSpectrogram

    norms = torch.load(tortoise_source / "tortoise" / "data" / "mel_norms.pth", weights_only=True)
    theirs = TorchMelSpectrogram(mel_norm_file=str(tortoise_source / "tortoise" / "data" / "mel_norms.pth"))
    for clip in clips:
        torch.testing.assert_close(log_mel(clip, norms), theirs(clip[None])[0], rtol=0, atol=1e-6)


def test_calm(tortoise_source):
    # api.py itself imports the whole of tortoise-tts
    tree = ast.parse((tortoise_source / "tortoise" / "api.py").read_text())
    (rule,) = (node for node in tree.body if getattr(node, "name", "") == "fix_autoregressive_output")
    scope: dict = {}
    exec(compile(ast.Module([rule], []), "api.py", "exec"), scope)
    draw = torch.Generator().manual_seed(0)
    for length in (3, 4, 5, 9, 60):
        codes = torch.randint(0, START, (100, length), generator=draw)
        codes[torch.rand(100, length, generator=draw) < 0.1] = STOP
        expected = [scope["fix_autoregressive_output"](row.clone(), STOP, complain=False) for row in codes]
        assert torch.equal(write_calm(codes, STOP), torch.stack(expected))
