"""Dataclass schemas of the settings: types by annotation, ranges and choices by `setting`. Those of training are in
`schema_training`.

A schema applies to every config node with its `_target_`. A node with another `_target_`, such as a loss or a callback of the
user's own, is not checked. Defaults are in the YAML files. Nothing here imports torch.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from clvp_train.pipelines import schema_training as training
from clvp_train.pipelines.rules import (
    MAX_CANDIDATES,
    MAX_CODES,
    MAX_SEED,
    MAX_STREAMS,
    MAX_VOCABULARY,
    Number,
    setting,
)


@dataclass(kw_only=True)
class Split:
    """`split`: in percent of the distinct texts."""

    test_percent: Number = setting(ge=0, le=100)
    val_percent: Number = setting(ge=0, le=100)

    @staticmethod
    def conflict(split: Any) -> str | None:
        """Which settings exclude each other."""
        total = split.test_percent + split.val_percent
        return "test_percent and val_percent must be at most 100 together." if total > 100 else None


@dataclass(kw_only=True)
class Root:
    """Settings outside of groups, of any command."""

    split: Split
    primary_metric: str
    primary_mode: str = setting(choices=("min", "max"))
    warm_start: bool
    seed: int = setting(ge=0, le=MAX_SEED)
    test: bool
    resume: str | None
    trust_run_folder: bool
    pairs: Any  # one or several folders or tables, see `data.given_pairs`
    reference: str | None
    references: str | None
    chunk_tokens: int | None = setting(ge=0)
    num_candidates: int | None = setting(ge=1, le=MAX_CANDIDATES)
    output_dir: str | None
    match: str = setting(choices=("text", "voice"))  # this and the next three: of tables of texts and codes
    tokenizer: str
    bad_rows: str = setting(choices=("skip", "error"))
    shard_size: int = setting(ge=1)
    format: str = setting(choices=("tortoise", "transformers", "torch"))
    base: str | None
    vocab_size: int = setting(ge=1)
    host: str
    port: int = setting(ge=1, le=65535)


@dataclass(kw_only=True)
class Demo(Root):
    """Settings of the demo outside of groups."""

    num_candidates: int | None = setting(ge=2, le=MAX_CANDIDATES, why="one candidate has nothing to be ranked against")
    candidates: str | None


@dataclass(kw_only=True)
class ImportPairs(Root):
    """Settings of `import_pairs` outside of groups."""

    name: str | None


@dataclass(kw_only=True)
class CodeTable:
    _target_: ClassVar[str] = "clvp_train.pairs.CodeTable"
    name: str
    split: str
    config: str | None
    revision: str | None


@dataclass(kw_only=True)
class Columns:
    _target_: ClassVar[str] = "clvp_train.pairs.Columns"
    codes: str
    text: str | None
    input_ids: str | None
    id: str | None
    speaker: str | None
    split: str | None
    candidate: str | None
    finished: str | None
    log_probability: str | None
    quality: str | None


@dataclass(kw_only=True)
class Codec:
    _target_: ClassVar[str] = "clvp_train.pairs.Codec"
    vocab_size: int = setting(ge=1, le=MAX_VOCABULARY)
    frame_rate: Number = setting(gt=0)
    num_streams: int = setting(ge=1, le=MAX_STREAMS)
    streams: str = setting(choices=("first", "flatten", "delay"))
    layout: str = setting(choices=("streams_first", "frames_first"))
    offset: int
    start_code: int | None
    stop_code: int | None
    pad_code: int | None


@dataclass(kw_only=True)
class CodeSource:
    """What all sources have in common."""

    batch_size: int = setting(ge=1)
    bad_rows: str = setting(choices=("skip", "error"))
    shard_size: int = setting(ge=1)
    weight: Number = setting(gt=0)


@dataclass(kw_only=True)
class ARCodes(CodeSource):
    _target_: ClassVar[str] = "clvp_train.pairs.ARCodes"
    batch_size: int | None = setting(ge=1)  # type: ignore[assignment]
    voices: str
    num_candidates: int = setting(ge=0, le=MAX_CANDIDATES)
    num_eval_candidates: int = setting(ge=1, le=MAX_CANDIDATES)
    seed: int = setting(ge=0)
    one_voice: bool
    clips_per_voice: int = setting(ge=1)
    judge: Any


@dataclass(kw_only=True)
class RecordingDistance:
    _target_: ClassVar[str] = "clvp_train.pairs.RecordingDistance"
    recordings: str


@dataclass(kw_only=True)
class ASRJudge:
    _target_: ClassVar[str] = "clvp_train.evaluation.ASRJudge"
    asr: str


@dataclass(kw_only=True)
class DVAECodes(CodeSource):
    _target_: ClassVar[str] = "clvp_train.pairs.DVAECodes"
    max_codes: int | None = setting(ge=1)


@dataclass(kw_only=True)
class StoredCodes(CodeSource):
    _target_: ClassVar[str] = "clvp_train.pairs.StoredCodes"
    path: str


@dataclass(kw_only=True)
class Sampling:
    """`tortoise.sampling`; null: the default of the Tortoise."""

    temperature: float | None = setting(ge=0)
    top_k: int | None = setting(ge=1)
    top_p: float | None = setting(gt=0, le=1)
    repetition_penalty: float | None = setting(gt=0)
    max_codes: int | None = setting(ge=1)
    penalised_ids: list[int] | None = setting(ge=0)


@dataclass(kw_only=True)
class TortoiseSettings:
    """What both formats have in common."""

    positions: str = setting(choices=("served", "trained"))
    sampling: Sampling
    device: str
    dtype: Any
    tokenizer: str | None


@dataclass(kw_only=True)
class Tortoise(TortoiseSettings):
    _target_: ClassVar[str] = "clvp_train.tortoise.FrozenTortoise.from_pretrained"
    name_or_path: str


@dataclass(kw_only=True)
class OriginalTortoise(TortoiseSettings):
    _target_: ClassVar[str] = "clvp_train.tortoise.FrozenTortoise.from_original"
    folder: str
    autoregressive: str | None
    mel_norms: str | None
    dvae: str | None
    heads: int | None = setting(ge=1)


@dataclass(kw_only=True)
class Perturbations:
    _target_: ClassVar[str] = "clvp_train.evaluation.PerturbationSuite"
    num_pairs: int = setting(ge=0)
    shares: list[float] = setting(gt=0, lt=1, min_length=1)
    seed: int = setting(ge=0)


@dataclass(kw_only=True)
class Rerank:
    _target_: ClassVar[str] = "clvp_train.evaluation.RerankConfig"
    pairs: str | None
    num_texts: int = setting(ge=0)
    num_candidates: int = setting(ge=2, le=MAX_CANDIDATES)
    asr: str | None
    recordings: str | None


@dataclass(kw_only=True)
class Reranker:
    _target_: ClassVar[str] = "clvp_train.Reranker.from_pretrained"
    tokenizer: str | None
    device: str
    chunk_tokens: int | None = setting(ge=1)
    max_codes: int = setting(**MAX_CODES)
    voice: str | None
    voice_weight: float = setting(ge=0)
    log_probability_weight: Any  # a number or "stored"; checked by the re-ranker


@dataclass(kw_only=True)
class Hub:
    _target_: ClassVar[str] = "clvp_train.hub.HubConfig"
    repo_id: str | None
    push: bool
    private: bool
    overwrite: bool
    license: str
    language: Any  # one or several, checked by `HubConfig`
    card: str | None


SCHEMAS = [schema for schema in (*vars(training).values(), *globals().values()) if hasattr(schema, "_target_")]
# YAML files extend it, by `defaults: [/trainer_schema@_here_]`, so that no flag of the Trainer needs a +. It is open
# (struct=False), so that another _target_ can take other arguments; `config.validate` reports a misspelt name.
node = OmegaConf.structured(training.Trainer, flags={"struct": False})
ConfigStore.instance().store(name="trainer_schema", node=node)
