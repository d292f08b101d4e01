"""Dataclass schemas of the settings: types by annotation, ranges and choices by `setting`.

Each is stored in Hydra's ConfigStore as `<name in lower case>_schema`, so that a YAML file can extend it:

    defaults:
      - /trainer_schema@_here_

A schema applies to every config node with its `_target_`. A node with another `_target_`, such as a loss or a callback of the
user's own, is not checked. Nothing here imports torch.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

Number = int | float


def setting(default: Any = MISSING, **rules: Any) -> Any:
    """A field with a default and rules, which hold for each item of a list.

    Args:
        default: its value; a list is copied.
        rules: `ge`, `gt`, `le`, `lt`: bounds of a number. `choices`: the allowed values. `min_length`, `max_length`: of a list.
            `why`: the reason, for the message. `only` and `instead`: the one allowed value of a Trainer flag that this package
            sets itself, and which setting to use.
    """
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=rules)
    return field(default=default, metadata=rules)


@dataclass
class Split:
    """`split`: in percent of the distinct texts."""

    test_percent: Number = setting(5, ge=0, le=100)
    val_percent: Number = setting(3, ge=0, le=100)

    @staticmethod
    def conflict(split: Any) -> str | None:
        """Which settings exclude each other."""
        return (
            "test_percent and val_percent must be at most 100 together."
            if split.test_percent + split.val_percent > 100
            else None
        )


@dataclass
class Root:
    """Settings outside of groups, of any command."""

    split: Split = field(default_factory=Split)
    primary_metric: str = "val/R@1"
    primary_mode: str = setting("max", choices=("min", "max"))
    warm_start: bool = True
    seed: int = setting(0, ge=0)
    test: bool = True
    resume: str | None = None
    pairs: Any = None  # one or several folders, see `data.given_pairs`
    reference: str | None = None
    chunk_size: int = setting(32, ge=0)
    num_candidates: int | None = setting(None, ge=1)
    output_dir: str | None = None
    vocab_size: int = setting(255, ge=1)
    host: str = "127.0.0.1"
    port: int = setting(7860, ge=1, le=65535)


@dataclass
class Demo(Root):
    """Settings of the demo outside of groups."""

    num_candidates: int | None = setting(16, ge=2, why="one candidate has nothing to be ranked against")


PERTURBATION_NAMES = ("cut_off", "repeat", "drop", "swap", "foreign_tail", "foreign_stretch", "babble")
MAX_CODES: dict[str, Any] = {"ge": 4, "why": "tortoise-tts ends every sequence with three codes of silence"}


@dataclass
class Data:
    _target_: str = "clvp_train.data.CLVPDataModule"
    batch_size: int = setting(96, ge=2, why="contrastive training needs negatives")
    eval_batch_size: int = setting(256, ge=1)
    num_workers: int = setting(0, ge=0)
    seed: int = setting(0, ge=0)
    pin_memory: bool = False
    num_hard_negatives: int = setting(0, ge=0)
    hard_negatives: list[str] = setting(list(PERTURBATION_NAMES[:5]), choices=PERTURBATION_NAMES, min_length=1)
    perturbation_share: list[float] = setting([0.1, 0.5], gt=0, le=1, min_length=2, max_length=2)
    num_judged_negatives: int = setting(0, ge=0)
    judged_margin: float = setting(0.0, ge=0)
    judged_positive_share: float = setting(1.0, gt=0, le=1)
    max_codes: int = setting(500, **MAX_CODES)
    eval_pairs: str | None = None

    @staticmethod
    def conflict(data: Any) -> str | None:
        least, most = data.perturbation_share
        return "perturbation_share must be [LEAST,MOST], in this order." if least > most else None


@dataclass
class Encoder:
    """`model.config.text_config` and `speech_config`: what is checked; `CLVPConfig` knows more."""

    takes_more: ClassVar[bool] = True
    vocab_size: int = setting(256, ge=1)
    hidden_size: int = setting(768, ge=1)
    intermediate_size: int = setting(1536, ge=1)
    num_hidden_layers: int = setting(20, ge=1)
    num_attention_heads: int = setting(12, ge=1)
    dropout: float = setting(0.1, ge=0, lt=1)
    attention_dropout: float = setting(0.1, ge=0, lt=1)


@dataclass
class ModelConfig:
    takes_more: ClassVar[bool] = True
    _target_: str = "clvp_train.models.CLVPConfig"
    projection_dim: int = setting(768, ge=1)
    logit_scale_init_value: float = 2.6592
    padding: str = setting("mask", choices=("mask", "tortoise"))
    text_config: Encoder = field(default_factory=Encoder)
    speech_config: Encoder = field(default_factory=Encoder)


@dataclass
class Training:
    _target_: str = "clvp_train.training.TrainingConfig"
    chunk_size: int = setting(32, ge=0)
    cached_gradients: bool = False
    gradient_checkpointing: bool = False
    compile: bool = False
    text_mask_percentage: float = setting(0.0, ge=0, lt=1, why="despite its name in Tortoise it is a share")
    voice_mask_percentage: float = setting(0.0, ge=0, lt=1, why="despite its name in Tortoise it is a share")

    @staticmethod
    def conflict(training: Any) -> str | None:
        if training.cached_gradients and training.chunk_size == 0:
            return "cached_gradients=true needs chunks. Set training.chunk_size to 1 or more."
        return None


@dataclass
class Optim:
    _target_: str = "clvp_train.training.OptimConfig"
    lr: float = setting(1e-3, ge=0)
    min_lr_ratio: float = setting(0.01, ge=0)
    warmup_ratio: float = setting(0.05, ge=0, le=1)
    weight_decay: float = setting(0.1, ge=0)
    betas: list[float] = setting([0.9, 0.98], ge=0, lt=1, min_length=2, max_length=2)
    eps: float = setting(1e-6, ge=0)
    gradient_clip_norm: float = setting(1.0, ge=0)
    text_lr: float | None = setting(None, ge=0)
    speech_lr: float | None = setting(None, ge=0)
    optimizer: Any = None
    scheduler: Any = None
    freeze: list[str] = setting([], choices=("text", "speech"), max_length=1, why="one tower must be trained")


@dataclass
class Contrastive:
    _target_: str = "clvp_train.losses.SymmetricContrastiveLoss"
    chunk_size: int = setting(1024, ge=1)


@dataclass
class Sigmoid:
    _target_: str = "clvp_train.losses.SigmoidLoss"
    bias: float = -10.0
    chunk_size: int = setting(1024, ge=1)


@dataclass
class Listwise:
    _target_: str = "clvp_train.losses.ListwiseLoss"
    contrastive: Any = None
    weight: float = setting(1.0, ge=0)
    temperature: float = setting(0.01, gt=0)


@dataclass
class LastCheckpoint:
    _target_: str = "clvp_train.training.LastCheckpoint"
    dirpath: str = MISSING
    every_n_train_steps: int | None = setting(None, ge=1)
    every_n_minutes: Number | None = setting(10, ge=0)


@dataclass
class EMA:
    _target_: str = "clvp_train.training.EMA"
    decay: float = setting(0.999, ge=0, lt=1)


@dataclass
class Codes:
    _target_: str = MISSING
    batch_size: int = setting(256, ge=1)
    bad_rows: str = setting("skip", choices=("skip", "error"))
    shard_size: int = setting(1024, ge=1)
    weight: Number = setting(1, gt=0)


@dataclass
class ARCodes(Codes):
    _target_: str = "clvp_train.pairs.ARCodes"
    voices: str = MISSING
    num_candidates: int = setting(2, ge=0)
    num_eval_candidates: int = setting(1, ge=1)
    seed: int = setting(0, ge=0)
    one_voice: bool = False
    clips_per_voice: int = setting(4, ge=1)
    judge: Any = None


@dataclass
class RecordingDistance:
    _target_: str = "clvp_train.pairs.RecordingDistance"
    recordings: str = MISSING


@dataclass
class ASRJudge:
    _target_: str = "clvp_train.evaluation.ASRJudge"
    asr: str = MISSING


@dataclass
class DVAECodes(Codes):
    _target_: str = "clvp_train.pairs.DVAECodes"
    batch_size: int = setting(32, ge=1)


@dataclass
class StoredCodes(Codes):
    _target_: str = "clvp_train.pairs.StoredCodes"
    path: str = MISSING


@dataclass
class Sampling:
    """`tortoise.sampling`; null: as the Tortoise says."""

    temperature: float | None = setting(None, ge=0)
    top_k: int | None = setting(None, ge=1)
    top_p: float | None = setting(None, gt=0, le=1)
    repetition_penalty: float | None = setting(None, gt=0)
    max_codes: int | None = setting(None, ge=1)
    penalised_ids: list[int] | None = setting(None, ge=0)


@dataclass
class TortoiseSettings:
    _target_: str = MISSING
    positions: str = setting("served", choices=("served", "trained"))
    sampling: Sampling = field(default_factory=Sampling)
    device: str = "cpu"
    dtype: Any = "float32"
    tokenizer: str | None = None


@dataclass
class Tortoise(TortoiseSettings):
    _target_: str = "clvp_train.tortoise.FrozenTortoise.from_pretrained"
    name_or_path: str = MISSING


@dataclass
class OriginalTortoise(TortoiseSettings):
    _target_: str = "clvp_train.tortoise.FrozenTortoise.from_original"
    folder: str = MISSING
    autoregressive: str | None = None
    mel_norms: str | None = None
    dvae: str | None = None
    heads: int | None = setting(None, ge=1)


@dataclass
class Perturbations:
    _target_: str = "clvp_train.evaluation.PerturbationSuite"
    num_pairs: int = setting(1000, ge=0)
    shares: list[float] = setting([0.1, 0.25, 0.5], gt=0, lt=1, min_length=1)
    seed: int = setting(0, ge=0)


@dataclass
class Rerank:
    _target_: str = "clvp_train.evaluation.RerankConfig"
    pairs: str | None = None
    num_texts: int = setting(100, ge=0)
    num_candidates: int = setting(16, ge=2)
    asr: str | None = None
    recordings: str | None = None


@dataclass
class Reranker:
    _target_: str = "clvp_train.Reranker.from_pretrained"
    tokenizer: str | None = None
    device: str = "cpu"
    chunk_size: int = setting(32, ge=1)
    max_codes: int = setting(500, **MAX_CODES)
    log_probability_weight: Any = None  # a number or "stored"; checked by the re-ranker


@dataclass
class Hub:
    _target_: str = "clvp_train.hub.HubConfig"
    repo_id: str | None = None
    push: bool = True
    private: bool = True
    overwrite: bool = False
    license: str = "unknown"
    language: str | None = None
    card: str | None = None


@dataclass
class Trainer:
    """All flags of Lightning's Trainer. Those with `only` are set by this package."""

    _target_: str = "lightning.Trainer"
    accelerator: Any = "auto"
    strategy: Any = "auto"
    devices: Any = "auto"
    num_nodes: int = setting(1, ge=1)
    precision: Any = None
    logger: Any = setting(None, only=None, instead="choose loggers with logger=…")
    callbacks: Any = setting(None, only=None, instead="add callbacks to the group callbacks")
    fast_dev_run: bool | int = setting(False, ge=0)
    max_epochs: int | None = setting(None, ge=-1)
    min_epochs: int | None = setting(None, ge=0)
    max_steps: int = setting(-1, ge=-1)
    min_steps: int | None = setting(None, ge=0)
    max_time: Any = None
    limit_train_batches: Number | None = setting(None, ge=0)
    limit_val_batches: Number | None = setting(None, ge=0)
    limit_test_batches: Number | None = setting(None, ge=0)
    limit_predict_batches: Number | None = setting(None, ge=0)
    overfit_batches: Number = setting(0.0, ge=0)
    val_check_interval: Any = None
    check_val_every_n_epoch: int | None = setting(1, ge=1)
    num_sanity_val_steps: int | None = setting(None, ge=-1)
    log_every_n_steps: int | None = setting(None, ge=1)
    enable_checkpointing: bool | None = setting(
        None,
        only=(None, True),
        instead="delete the callbacks that write checkpoints: '~callbacks.checkpoint' '~callbacks.best'",
    )
    enable_progress_bar: bool | None = None
    enable_model_summary: bool | None = None
    accumulate_grad_batches: int = setting(1, ge=1)
    gradient_clip_val: Number | None = setting(None, only=None, instead="set optim.gradient_clip_norm")
    gradient_clip_algorithm: str | None = setting(None, only=None, instead="set optim.gradient_clip_norm")
    deterministic: Any = setting(None, choices=(None, True, False, "warn"))
    benchmark: bool | None = None
    inference_mode: bool = True
    use_distributed_sampler: bool = setting(False, only=False, instead="the DataModule shards batches")
    profiler: Any = None
    detect_anomaly: bool = False
    barebones: bool = setting(False, only=False, instead="set logger=none and trainer.enable_progress_bar=false")
    plugins: Any = setting(None, only=None, instead="use trainer.precision and trainer.strategy")
    sync_batchnorm: bool = False
    reload_dataloaders_every_n_epochs: int = setting(0, ge=0)
    default_root_dir: Any = setting(None, only=None, instead="set hydra.run.dir")
    enable_autolog_hparams: bool = True
    model_registry: str | None = None


SCHEMAS = [
    Data,
    ModelConfig,
    Training,
    Optim,
    Contrastive,
    Sigmoid,
    Listwise,
    LastCheckpoint,
    EMA,
    ARCodes,
    RecordingDistance,
    ASRJudge,
    DVAECodes,
    StoredCodes,
    Tortoise,
    OriginalTortoise,
    Perturbations,
    Rerank,
    Reranker,
    Hub,
    Trainer,
]
for schema in SCHEMAS:
    # open (struct=False), so that another _target_ can take other arguments; `config.validate` reports a misspelt name
    node = OmegaConf.structured(schema, flags={"struct": False})
    ConfigStore.instance().store(name=f"{schema.__name__.lower()}_schema", node=node)
