"""Writes a Tortoise in the format that its author published, with random weights."""

import json
from pathlib import Path

import torch

from clvp_train.tortoise.dvae import DiscreteVAE, DVAEConfig

NANO = Path(__file__).parents[1] / "data/nano/tortoise"
SMALL = {"width": 128, "layers": 2, "codes": 96, "mel_blocks": 2, "text_positions": 64, "speech_positions": 104}


def original_state(width, layers, codes, mel_blocks, text_positions, speech_positions) -> dict[str, torch.Tensor]:
    """Names and shapes as in the published autoregressive.pth, including its causal masks."""
    shapes: dict[str, tuple[int, ...]] = {"conditioning_encoder.init.weight": (width, 80, 1)}
    shapes["conditioning_encoder.init.bias"] = (width,)
    for block in range(mel_blocks):
        attention = f"conditioning_encoder.attn.{block}"
        shapes |= {f"{attention}.norm.weight": (width,), f"{attention}.norm.bias": (width,)}
        shapes |= {f"{attention}.qkv.weight": (3 * width, width, 1), f"{attention}.qkv.bias": (3 * width,)}
        shapes |= {f"{attention}.proj_out.weight": (width, width, 1), f"{attention}.proj_out.bias": (width,)}
    for layer in range(layers):
        block = f"gpt.h.{layer}"
        shapes |= {f"{block}.attn.bias": (1, 1, 9, 9), f"{block}.attn.masked_bias": ()}
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
        for name, inputs, outputs in (
            ("attn.c_attn", 1, 3),
            ("attn.c_proj", 1, 1),
            ("mlp.c_fc", 1, 4),
            ("mlp.c_proj", 4, 1),
        ):
            shapes |= {f"{block}.{name}.weight": (inputs * width, outputs * width)}
            shapes |= {f"{block}.{name}.bias": (outputs * width,)}
    for norm in ("gpt.ln_f", "final_norm"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    shapes |= {"text_embedding.weight": (256, width), "mel_embedding.weight": (codes + 2, width)}
    shapes |= {
        "text_pos_embedding.emb.weight": (text_positions, width),
        "mel_pos_embedding.emb.weight": (speech_positions, width),
    }
    shapes |= {"text_head.weight": (256, width), "text_head.bias": (256,)}
    shapes |= {"mel_head.weight": (codes + 2, width), "mel_head.bias": (codes + 2,)}
    draw = None if torch.get_default_device().type == "meta" else torch.Generator().manual_seed(0)
    return {key: torch.randn(shape, generator=draw) * width**-0.5 for key, shape in shapes.items()}


def save_dvae(folder: Path, num_tokens: int = 96) -> DiscreteVAE:
    torch.manual_seed(0)
    dvae = DiscreteVAE(DVAEConfig(num_tokens=num_tokens, codebook_dim=8, hidden_dim=12, num_res_blocks=1))
    torch.save(dvae.state_dict() | {"discrete_loss.accumulator": torch.zeros(3)}, folder / "dvae.pth")
    return dvae


def write_parts(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """autoregressive.pth with this state, and the two files of tortoise-tts."""
    folder.mkdir()
    torch.save(state, folder / "autoregressive.pth")
    torch.save(torch.linspace(4.0, 8.0, 80), folder / "mel_norms.pth")
    merges, vocabulary = (
        (NANO / "merges.txt").read_text().splitlines()[1:],
        json.loads((NANO / "vocab.json").read_text()),
    )
    (folder / "tokenizer.json").write_text(
        json.dumps({"model": {"type": "BPE", "vocab": vocabulary, "merges": merges}})
    )


def write_original(folder: Path, codes: int) -> None:
    """A small Tortoise with this number of codes and a DVAE."""
    write_parts(folder, original_state(**SMALL | {"codes": codes}))
    save_dvae(folder, codes)
