"""Configurations of CLVP and of its two towers, the text encoder and the speech encoder.

Imports transformers only: together with `modeling_clvp.py` this file is uploaded to the Hub as remote code. The defaults are
those of `clvp2.pth`, the model that tortoise-tts uses ("Better speech synthesis through scaling", Betker 2023,
https://arxiv.org/abs/2305.07243; `tortoise/api.py` and `tortoise/models/clvp.py` of tortoise-tts 3.0.0).
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

from transformers import PreTrainedConfig

PADDINGS = ("mask", "tortoise")
RMS_NORMS = ("tortoise", "transformers")
SUMMARY_TYPES = ("mean", "first", "last")
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads")
MAX_LAYERS = 1000  # more would be built without an end


def _check(condition: bool, config: Any, field: str, problem: str) -> None:
    if not condition:
        raise ValueError(f"{type(config).__name__}.{field}={getattr(config, field)!r}: {problem}.")


def _check_choice(config: Any, field: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        names = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"{type(config).__name__}.{field}={value!r}: must be {names}.")


class _CLVPEncoderConfig(PreTrainedConfig):
    """Configuration of one tower of CLVP. Widths are in features, probabilities in [0, 1].

    Fields:
        vocab_size: number of ids that the tower can embed.
        hidden_size: width of the residual stream.
        intermediate_size: width inside the gated feed-forward (its first layer is twice as wide).
        projection_dim: output width of the tower's `…WithProjection` model; `CLVPModel` uses `CLVPConfig.projection_dim`.
        num_hidden_layers: attention + feed-forward pairs.
        num_attention_heads: heads of each attention.
        head_dim: width of a head. None: hidden_size // num_attention_heads. tortoise-tts always uses 64.
        rotary_dim: leading dims of each head of q, k and v that are rotated. None: max(head_dim // 2, 32), as in
            tortoise-tts, and never more than head_dim.
        hidden_act: activation of the gate, by its name in transformers.
        layer_norm_eps: added under the root by the final LayerNorm, and by the RMSNorms if rms_norm is "transformers".
        rms_norm: "tortoise" divides by max(rms, 1e-8); "transformers" by sqrt(rms ** 2 + layer_norm_eps), which changes
            the activations of newly initialised embeddings by about 1%. Scores are correct only with the norm that the
            weights were trained with.
        attention_dropout: on attention probabilities. CLVP was trained with 0.1 (`attn_dropout`).
        dropout: between the gate and the last layer of the feed-forward. CLVP was trained with 0.1 (`ff_dropout`).
        use_attention_bias: biases in the q, k and v projections (the output projection always has one).
        use_rotary_embedding: rotary positions; without them a tower ignores the order of its input.
        summary_type: "mean", "first" or "last" over the positions that are not padding.
        padding: "mask" applies attention masks; "tortoise" ignores them, as tortoise-tts does at inference.
        initializer_range: standard deviation of initial weights.
        initializer_factor: multiplies every standard deviation of initial weights.
        pad_token_id, bos_token_id, eos_token_id: ids used to pad, start and end a sequence, or None.

    Raises:
        ValueError: a field is out of range; the message names the field and the valid values.
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
        for field in SIZES:
            _check(getattr(self, field) >= 1, self, field, "must be 1 or more")
        _check(self.num_hidden_layers <= MAX_LAYERS, self, "num_hidden_layers", f"must be {MAX_LAYERS} or less")
        if self.head_dim is None:
            divides = self.hidden_size % self.num_attention_heads == 0
            problem = f"not divisible by num_attention_heads ({self.num_attention_heads}): change one, or set head_dim"
            _check(divides, self, "hidden_size", problem)
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.rotary_dim is None:
            self.rotary_dim = min(max(self.head_dim // 2, 32), self.head_dim)
        fits = self.rotary_dim % 2 == 0 and 0 < self.rotary_dim <= self.head_dim
        problem = f"set it, or head_dim, to an even number; it must be between 2 and head_dim ({self.head_dim})"
        _check(fits or not self.use_rotary_embedding, self, "rotary_dim", problem)
        for field in ("attention_dropout", "dropout"):
            _check(0 <= getattr(self, field) < 1, self, field, "must be 0 or more and less than 1")
        _check_choice(self, "rms_norm", self.rms_norm, RMS_NORMS)
        _check_choice(self, "summary_type", self.summary_type, SUMMARY_TYPES)
        super().__post_init__(**kwargs)

    def __setattr__(self, key: str, value: Any) -> None:
        if key == "padding":
            _check_choice(self, key, value, PADDINGS)
        super().__setattr__(key, value)

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """As in transformers; the tower of a complete CLVP gets the projection width of the weights stored with it."""
        fields, kwargs = super().get_config_dict(*args, **kwargs)
        if cls.base_config_key in fields and fields.get("projection_dim"):
            fields[cls.base_config_key]["projection_dim"] = fields["projection_dim"]
        return fields, kwargs


class CLVPTextConfig(_CLVPEncoderConfig):
    """Configuration of the text encoder: the 256 BPE ids of the Tortoise tokenizer. Fields: see `_CLVPEncoderConfig`.

    `from_pretrained` also reads the text encoder's configuration from the folder of a complete CLVP.
    """

    model_type = "clvp_train_text"
    base_config_key = "text_config"

    pad_token_id: int | None = 0
    bos_token_id: int | None = 255
    eos_token_id: int | None = 0


class CLVPSpeechConfig(_CLVPEncoderConfig):
    """Configuration of the speech encoder: the 8192 codes of the Tortoise DVAE. Fields: see `_CLVPEncoderConfig`.

    Padding is code 83, Tortoise's silence. `from_pretrained` also reads the folder of a complete CLVP.
    """

    model_type = "clvp_train_speech"
    base_config_key = "speech_config"

    vocab_size: int = 8192
    pad_token_id: int | None = 83


class CLVPConfig(PreTrainedConfig):
    """Configuration of a complete CLVP: two towers and the scale of their similarity.

    Fields:
        text_config, speech_config: a config, a dict of its fields, or None for the defaults. Copied, never shared.
        projection_dim: width of the shared embedding space of `CLVPModel`; the towers' own `projection_dim` may differ.
            None: that of the towers, which must then agree. It is also the default of a tower given as a dict.
        logit_scale_init_value: initial value of `logit_scale`, the log of the factor on cosine similarities. The default
            is CLIP's ln(1 / 0.07), which transformers also uses for CLVP; tortoise-tts starts from 1.0.
        padding: "mask" or "tortoise" (see the towers). None: that of the towers. Setting it on a config, at any time,
            sets it on both towers.

    Raises:
        ValueError: the towers disagree, or a field is out of range; the message names the field.
    """

    model_type = "clvp_train"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "text_config": CLVPTextConfig,
        "speech_config": CLVPSpeechConfig,
    }

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    speech_config: dict[str, Any] | PreTrainedConfig | None = None
    projection_dim: int | None = None
    logit_scale_init_value: float = 2.6592
    padding: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        shared = {"projection_dim": self.projection_dim, "padding": self.padding}
        shared = {field: value for field, value in shared.items() if value is not None}
        for key in self.sub_configs_defaults:
            tower = copy.deepcopy(getattr(self, key))
            setattr(self, key, shared | (tower or {}) if tower is None or isinstance(tower, dict) else tower)
        super().__post_init__(**kwargs)
        text, speech = self._tower("text_config"), self._tower("speech_config")
        for field in ("projection_dim", "padding"):
            ours, theirs = getattr(text, field), getattr(speech, field)
            if getattr(self, field) is None and ours != theirs:
                raise ValueError(
                    f"text_config.{field}={ours!r} and speech_config.{field}={theirs!r} differ: set CLVPConfig.{field}."
                )
            setattr(self, field, ours if getattr(self, field) is None else getattr(self, field))
        _check(self.projection_dim >= 1, self, "projection_dim", "must be 1 or more")

    def __setattr__(self, key: str, value: Any) -> None:
        if key == "padding" and value is not None:
            _check_choice(self, key, value, PADDINGS)
            # before the end of `__post_init__` the towers may still be the caller's objects
            if getattr(self, "_post_init_done", False):
                self._tower("text_config").padding = self._tower("speech_config").padding = value
        super().__setattr__(key, value)

    def _tower(self, key: str) -> _CLVPEncoderConfig:
        tower: _CLVPEncoderConfig = getattr(self, key)
        return tower

    @classmethod
    def from_text_speech_configs(
        cls, text_config: CLVPTextConfig, speech_config: CLVPSpeechConfig, **kwargs: Any
    ) -> CLVPConfig:
        """Combines the configurations of two towers; `kwargs` are further fields of `CLVPConfig`.

        Raises:
            ValueError: as `CLVPConfig` does.
        """
        return cls(text_config=text_config, speech_config=speech_config, **kwargs)


__all__ = ["CLVPConfig", "CLVPSpeechConfig", "CLVPTextConfig"]
