"""The one place that knows transformers' key names: its composite Clvp checkpoint to and from our AR's state dict."""

from collections.abc import Iterable

import torch

from clvp_train.errors import UserError

CLVP_PREFIXES = ("text_encoder_model.", "speech_encoder_model.", "logit_scale")  # what `clvp_train.models` reads
OUTSIDE = {
    "text_embedding.": "conditioning_encoder.text_token_embedding.",
    "text_position.": "conditioning_encoder.text_position_embedding.",
    "speech_embedding.": "speech_decoder_model.model.decoder.input_embeds_layer.",
    "speech_position.": "speech_decoder_model.model.decoder.position_embeds_layer.",
    "layer_norm.": "speech_decoder_model.model.decoder.layer_norm.",
    "final_norm.": "speech_decoder_model.final_norm.",
    "head.": "speech_decoder_model.lm_head.",
}
IN_BLOCK = {"ln_1.": "input_layernorm.", "ln_2.": "post_attention_layernorm.", "attn.c_proj.": "attn.out_proj."}
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight")  # GPT-2's Conv1D; Clvp has linear layers there


def composite_keys(key: str) -> list[str]:
    """The composite checkpoint's keys that make up one of ours: three for the fused query, key and value, else one."""
    if key.startswith("blocks."):
        _, layer, rest = key.split(".", 2)
        block = f"speech_decoder_model.model.decoder.layers.{layer}."
        if rest.startswith("attn.c_attn."):
            return [f"{block}attn.{part}_proj.{rest.rsplit('.', 1)[1]}" for part in "qkv"]
        return [block + _replace_start(rest, IN_BLOCK)]
    return [_replace_start(key, OUTSIDE)]


def _replace_start(key: str, names: dict[str, str]) -> str:
    return next((theirs + key.removeprefix(ours) for ours, theirs in names.items() if key.startswith(ours)), key)


def from_composite(composite: dict[str, torch.Tensor], expected: Iterable[str], source: str) -> dict[str, torch.Tensor]:
    """Turns a composite state dict into that of `AutoRegressive`.

    Args:
        composite: transformers' keys; the CLVP encoders may be there or not.
        expected: the keys of the AR's state dict.
        source: the checkpoint's name, for errors.

    Raises:
        UserError: a key is missing or unknown.
    """
    wanted = {key: composite_keys(key) for key in expected}
    missing = sorted({theirs for keys in wanted.values() for theirs in keys} - composite.keys())
    left = composite.keys() - {theirs for keys in wanted.values() for theirs in keys}
    # `attn.bias` is the causal mask that old versions of transformers stored
    unknown = sorted(key for key in left if not key.startswith(CLVP_PREFIXES) and not key.endswith(".attn.bias"))
    if missing or unknown:
        raise UserError(
            f"{source} does not hold the AR that its config.json describes: {len(missing)} keys missing {missing[:3]}, "
            f"{len(unknown)} unknown {unknown[:3]}; give a composite Clvp checkpoint as transformers saves it"
        )
    joined = {key: torch.cat([composite[theirs] for theirs in keys]) for key, keys in wanted.items()}
    return {key: tensor.T.contiguous() if key.endswith(TRANSPOSED) else tensor for key, tensor in joined.items()}


def to_composite(ours: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of `from_composite`, without the CLVP encoders."""
    composite: dict[str, torch.Tensor] = {}
    for key, tensor in ours.items():
        keys = composite_keys(key)
        tensor = tensor.T if key.endswith(TRANSPOSED) else tensor
        composite |= {theirs: part.contiguous() for theirs, part in zip(keys, tensor.chunk(len(keys)))}
    return composite
