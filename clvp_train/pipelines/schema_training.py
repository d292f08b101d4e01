"""Schemas of the settings of training, from batches to Lightning's Trainer, see `schema`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from clvp_train.pipelines.rules import (
    MAX_CODES,
    MAX_LAYERS,
    MAX_NEGATIVES,
    MAX_VOCABULARY,
    MAX_WIDTH,
    Number,
    setting,
)


def _perturbations() -> Sequence[str]:
    from clvp_train.data.perturbations import (
        PERTURBATIONS,  # imports numpy, which --help and shell completion do not need
    )

    return list(PERTURBATIONS)


@dataclass(kw_only=True)
class Data:
    _target_: ClassVar[str] = "clvp_train.data.CLVPDataModule"
    batch_size: int = setting(ge=2, why="contrastive training needs negatives")
    eval_batch_size: int = setting(ge=1)
    num_workers: int = setting(ge=0, le=1024)
    seed: int = setting(ge=0)
    pin_memory: bool
    num_hard_negatives: int = setting(ge=0, le=MAX_NEGATIVES)
    hard_negatives: list[str] = setting(choices=_perturbations, min_length=1)
    perturbation_share: list[float] = setting(gt=0, le=1, min_length=2, max_length=2)
    num_judged_negatives: int = setting(ge=0, le=MAX_NEGATIVES)
    judged_margin: float = setting(ge=0)
    judged_positive_share: float = setting(gt=0, le=1)
    max_codes: int = setting(**MAX_CODES)
    eval_pairs: str | None
    val_pairs: str | None
    cache_gb: float | None = setting(gt=0)

    @staticmethod
    def conflict(data: Any) -> str | None:
        least, most = data.perturbation_share
        return "perturbation_share must be [LEAST,MOST], in this order." if least > most else None


@dataclass(kw_only=True)
class Encoder:
    """`model.config.text_config` and `speech_config`: what is checked; `CLVPConfig` knows more."""

    takes_more: ClassVar[bool] = True
    vocab_size: int = setting(ge=1, le=MAX_VOCABULARY)
    hidden_size: int = setting(ge=1, le=MAX_WIDTH)
    intermediate_size: int = setting(ge=1, le=MAX_WIDTH)
    num_hidden_layers: int = setting(ge=1, le=MAX_LAYERS)
    num_attention_heads: int = setting(ge=1)
    dropout: float = setting(ge=0, lt=1)
    attention_dropout: float = setting(ge=0, lt=1)


@dataclass(kw_only=True)
class ModelConfig:
    takes_more: ClassVar[bool] = True
    _target_: ClassVar[str] = "clvp_train.models.CLVPConfig"
    projection_dim: int = setting(ge=1, le=MAX_WIDTH)
    logit_scale_init_value: float
    padding: str = setting(choices=("mask", "tortoise"))
    text_config: Encoder
    speech_config: Encoder


@dataclass(kw_only=True)
class Training:
    _target_: ClassVar[str] = "clvp_train.training.TrainingConfig"
    chunk_tokens: int | None = setting(ge=0)
    cached_gradients: bool
    gradient_checkpointing: bool
    compile: bool
    packed: bool | None
    max_skipped_steps: int | None = setting(ge=0)
    text_mask_percentage: float = setting(ge=0, lt=1, why="despite its name in Tortoise it is a share")
    voice_mask_percentage: float = setting(ge=0, lt=1, why="despite its name in Tortoise it is a share")

    @staticmethod
    def conflict(training: Any) -> str | None:
        if training.packed and training.compile:
            return "packed=true does not work with compile=true. Set one of them."
        if training.cached_gradients and training.chunk_tokens == 0:
            return "cached_gradients=true needs chunks. Set training.chunk_tokens to 1 or more, or to null."
        return None


@dataclass(kw_only=True)
class Optim:
    _target_: ClassVar[str] = "clvp_train.training.OptimConfig"
    lr: float = setting(ge=0)
    min_lr_ratio: float = setting(ge=0)
    warmup_ratio: float = setting(ge=0, le=1)
    decay_ratio: float = setting(ge=0, le=1)
    weight_decay: float = setting(ge=0)
    betas: list[float] = setting(ge=0, lt=1, min_length=2, max_length=2)
    eps: float = setting(ge=0)
    gradient_clip_norm: float = setting(ge=0)
    text_lr: float | None = setting(ge=0)
    speech_lr: float | None = setting(ge=0)
    optimizer: Any
    scheduler: Any
    freeze: list[str] = setting(choices=("text", "speech"), max_length=1, why="one tower must be trained")


@dataclass(kw_only=True)
class Contrastive:
    _target_: ClassVar[str] = "clvp_train.losses.SymmetricContrastiveLoss"
    chunk_size: int = setting(ge=1)


@dataclass(kw_only=True)
class Sigmoid:
    _target_: ClassVar[str] = "clvp_train.losses.SigmoidLoss"
    bias: float
    chunk_size: int = setting(ge=1)


@dataclass(kw_only=True)
class Listwise:
    _target_: ClassVar[str] = "clvp_train.losses.ListwiseLoss"
    contrastive: Any
    weight: float = setting(ge=0)
    temperature: float = setting(gt=0)


@dataclass(kw_only=True)
class LastCheckpoint:
    _target_: ClassVar[str] = "clvp_train.training.LastCheckpoint"
    dirpath: str
    every_n_train_steps: int | None = setting(ge=1)
    every_n_minutes: Number | None = setting(ge=0)


@dataclass(kw_only=True)
class EMA:
    _target_: ClassVar[str] = "clvp_train.training.EMA"
    decay: float = setting(ge=0, lt=1)


@dataclass(kw_only=True)
class Trainer:
    """All flags of Lightning's Trainer, with its defaults. Those with `only` are set by this package."""

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

    @staticmethod
    def conflict(trainer: Any) -> str | None:
        if trainer.precision in ("bf16-true", "16-true"):
            return (
                f"precision={trainer.precision}: weights of 16 bits round small updates away, so that the temperature never "
                "moves. Set trainer.precision=bf16-mixed."
            )
        return None
