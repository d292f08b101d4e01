"""Configurations of CLVP and of its two halves.

Imports transformers only: with `modeling_clvp.py` this file travels to the Hub as remote code. The default figures are
those of `clvp2.pth`, the model that tortoise-tts serves ("Better speech synthesis through scaling", Betker 2023,
https://arxiv.org/abs/2305.07243; `tortoise/api.py` and `tortoise/models/clvp.py` of tortoise-tts 3.0.0).
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

from transformers import PreTrainedConfig

PADDINGS = ("mask", "tortoise")
RMS_NORMS = ("tortoise", "transformers")
SUMMARY_TYPES = ("mean", "first", "last")


def _check_choice(owner: Any, field: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        names = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"{type(owner).__name__}.{field} is {value!r}: set it to {names}.")


class _CLVPEncoderConfig(PreTrainedConfig):
    """What one half of CLVP looks like. Widths are in features, probabilities in [0, 1].

    Fields:
        vocab_size: number of ids the half can embed.
        hidden_size: width of the residual stream.
        intermediate_size: width inside the gated feed-forward (its first layer is twice as wide).
        projection_dim: width of the shared embedding space; the same in both halves.
        num_hidden_layers: attention + feed-forward pairs.
        num_attention_heads: heads of each attention.
        head_dim: width of a head. None: hidden_size // num_attention_heads. tortoise-tts has 64 whatever the width.
        rotary_dim: leading dims of each head of q, k and v that are rotated. None: max(head_dim // 2, 32), as in
            tortoise-tts, and never more than head_dim.
        hidden_act: activation of the gate, a name transformers knows.
        layer_norm_eps: added under the root by the final LayerNorm, and by the RMSNorms if rms_norm is "transformers".
        rms_norm: "tortoise" divides by max(rms, 1e-8); "transformers" by sqrt(rms ** 2 + layer_norm_eps), which moves
            the activations of fresh embeddings by about 1%. Weights score as trained only under the norm they were
            trained with.
        attention_dropout: on attention probabilities. 0.1 is what CLVP was trained with (`attn_dropout`).
        dropout: between the gate and the last layer of the feed-forward. 0.1 likewise (`ff_dropout`).
        use_attention_bias: biases in the q, k and v projections (the output projection always has one).
        use_rotary_embedding: rotary positions; without them a half knows no order.
        summary_type: "mean", "first" or "last" over the positions that are not padding.
        padding: "mask" honours attention masks; "tortoise" ignores them, as tortoise-tts serves CLVP.
        initializer_range: standard deviation of fresh weights.
        initializer_factor: multiplies every standard deviation of fresh weights.
        pad_token_id, bos_token_id, eos_token_id: ids used to pad, start and end a sequence, or None.

    Raises:
        ValueError: a field does not fit; the message names it and the mend.
    """

    vocab_size: int = 256
    hidden_size: int = 768
    intermediate_size: int = 1536
    projection_dim: int = 768
    num_hidden_layers: int = 20
    num_attention_heads: int = 12
    head_dim: int | None = None
    rotary_dim: int | None = None
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    rms_norm: str = "tortoise"
    attention_dropout: float = 0.1
    dropout: float = 0.1
    use_attention_bias: bool = False
    use_rotary_embedding: bool = True
    summary_type: str = "mean"
    padding: str = "mask"
    initializer_range: float = 0.02
    initializer_factor: float = 1.0
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        name = type(self).__name__
        sizes = ["vocab_size", "hidden_size", "intermediate_size", "projection_dim"]
        sizes += ["num_hidden_layers", "num_attention_heads"]
        for field in sizes:
            if getattr(self, field) < 1:
                raise ValueError(f"{name}.{field} is {getattr(self, field)}: set it to 1 or more.")
        if self.head_dim is None:
            if self.hidden_size % self.num_attention_heads:
                raise ValueError(
                    f"{name}.hidden_size ({self.hidden_size}) is not divisible by num_attention_heads "
                    f"({self.num_attention_heads}): change one of them, or set head_dim."
                )
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.rotary_dim is None:
            self.rotary_dim = min(max(self.head_dim // 2, 32), self.head_dim)
        if self.use_rotary_embedding and (self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.head_dim):
            raise ValueError(
                f"{name}.rotary_dim ({self.rotary_dim}) must be even and between 2 and head_dim ({self.head_dim}): "
                "set rotary_dim, or an even head_dim."
            )
        for field in ("attention_dropout", "dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"{name}.{field} is {getattr(self, field)}: set it to 0 or more and less than 1.")
        _check_choice(self, "rms_norm", self.rms_norm, RMS_NORMS)
        _check_choice(self, "summary_type", self.summary_type, SUMMARY_TYPES)
        super().__post_init__(**kwargs)

    def __setattr__(self, key: str, value: Any) -> None:
        if key == "padding":
            _check_choice(self, key, value, PADDINGS)
        super().__setattr__(key, value)


class CLVPTextConfig(_CLVPEncoderConfig):
    """The text half: the 256 BPE ids of the Tortoise tokenizer. Fields: see `_CLVPEncoderConfig`.

    `from_pretrained` on a folder of a whole CLVP takes the text half.
    """

    model_type = "clvp_train_text"
    base_config_key = "text_config"

    pad_token_id: int | None = 0
    bos_token_id: int | None = 255
    eos_token_id: int | None = 0


class CLVPSpeechConfig(_CLVPEncoderConfig):
    """The speech half: the 8192 codes of the Tortoise DVAE. Fields: see `_CLVPEncoderConfig`.

    Padding is code 83, Tortoise's silence. `from_pretrained` on a folder of a whole CLVP takes the speech half.
    """

    model_type = "clvp_train_speech"
    base_config_key = "speech_config"

    vocab_size: int = 8192
    pad_token_id: int | None = 83


class CLVPConfig(PreTrainedConfig):
    """A whole CLVP: two halves and the scale between them.

    Fields:
        text_config, speech_config: a config, a dict of its fields, or None for the defaults. Copied, never shared.
        projection_dim: width of the shared embedding space. None: what the halves say, which must agree.
        logit_scale_init_value: fresh value of `logit_scale`, the log of the factor on cosine similarities. The default
            is CLIP's ln(1 / 0.07), also transformers' for CLVP; tortoise-tts starts from 1.0.
        padding: "mask" or "tortoise" (see the halves). None: what the halves say, else "mask". Setting it on a
            config, at any time, sets it on both halves.

    Raises:
        ValueError: the halves disagree, or a field does not fit; the message names it and the mend.
    """

    model_type = "clvp_train"
    sub_configs_defaults: ClassVar = {"text_config": CLVPTextConfig, "speech_config": CLVPSpeechConfig}  # type: ignore[dict-item]

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    speech_config: dict[str, Any] | PreTrainedConfig | None = None
    projection_dim: int | None = None
    logit_scale_init_value: float = 2.6592
    padding: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for key in self.sub_configs_defaults:
            half = copy.deepcopy(getattr(self, key))
            if half is None or isinstance(half, dict):
                shared = {"projection_dim": self.projection_dim, "padding": self.padding}
                half = {field: value for field, value in shared.items() if value is not None} | (half or {})
            setattr(self, key, half)
        super().__post_init__(**kwargs)
        text, speech = self._half("text_config"), self._half("speech_config")
        if self.projection_dim is None:
            self.projection_dim = text.projection_dim
        if not self.projection_dim == text.projection_dim == speech.projection_dim:
            raise ValueError(
                f"CLVPConfig.projection_dim ({self.projection_dim}), text_config.projection_dim "
                f"({text.projection_dim}) and speech_config.projection_dim ({speech.projection_dim}) differ: the two "
                "halves meet in one space, so give all three the same value."
            )
        if self.padding is None and text.padding != speech.padding:
            raise ValueError(
                f"text_config.padding ({text.padding!r}) and speech_config.padding ({speech.padding!r}) differ: set "
                "CLVPConfig.padding, which sets both."
            )
        self.padding = text.padding if self.padding is None else self.padding

    def __setattr__(self, key: str, value: Any) -> None:
        if key == "padding" and value is not None:
            _check_choice(self, key, value, PADDINGS)
            # Until then the halves are still the caller's own.
            if getattr(self, "_post_init_done", False):
                self._half("text_config").padding = self._half("speech_config").padding = value
        super().__setattr__(key, value)

    def _half(self, key: str) -> _CLVPEncoderConfig:
        half: _CLVPEncoderConfig = getattr(self, key)
        return half

    @classmethod
    def from_text_speech_configs(
        cls, text_config: CLVPTextConfig, speech_config: CLVPSpeechConfig, **kwargs: Any
    ) -> CLVPConfig:
        """A whole config out of two halves; `kwargs` are further fields of `CLVPConfig`.

        Raises:
            ValueError: as `CLVPConfig` does.
        """
        return cls(text_config=text_config, speech_config=speech_config, **kwargs)


__all__ = ["CLVPConfig", "CLVPSpeechConfig", "CLVPTextConfig"]
