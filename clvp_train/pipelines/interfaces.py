"""What the parts of a user's own must have: small protocols, which are checked before any work.

A part need not inherit from the classes of this package; see docs/extending.md for complete examples.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig

from clvp_train.corpus import Corpus as CorpusBase
from clvp_train.corpus import Split, Utterance
from clvp_train.errors import UserError
from clvp_train.losses import ContrastiveOutput
from clvp_train.pairs.sources import BadRows, OnCandidate, Rows, Utterances
from clvp_train.tortoise import FrozenTortoise


class Corpus(Protocol):
    """`corpus`: a named, repeatable stream of utterances; see `corpus.Corpus`."""

    name: str
    source: str

    def stream(self, wanted: Any = ..., audio: bool = True) -> Iterator[tuple[int, Utterance]]: ...


class CodeSource(Protocol):
    """`codes`: utterances to rows of pairs; see `pairs.CodeSource`."""

    name: str
    needs_audio: bool
    has_quality: bool
    shard_size: int
    bad_rows: str
    weight: float

    def check(self, tortoise: FrozenTortoise) -> None: ...
    def inspect(self, tortoise: FrozenTortoise, number: int, utterance: Utterance) -> None: ...
    def settings(self) -> dict[str, Any]: ...
    def prepare(self, tortoise: FrozenTortoise, corpus: CorpusBase, bad: BadRows) -> None: ...
    def num_rows(self, utterance: Utterance, split: Split) -> int: ...
    def encode(
        self, tortoise: FrozenTortoise, utterances: Utterances, bad: BadRows, on_candidate: OnCandidate
    ) -> Rows: ...


class Loss(Protocol):
    """`loss`: embeddings to a scalar; see `losses.SymmetricContrastiveLoss`."""

    def __call__(self, *embeds: Any, **more: Any) -> ContrastiveOutput: ...


class Model(Protocol):
    """`model`: two encoders; see `models.CLVPModel`."""

    config: Any
    logit_scale: Any
    text_model: Any
    speech_model: Any

    def get_text_features(self, input_ids: Any, attention_mask: Any = None) -> Any: ...
    def get_speech_features(self, speech_ids: Any, attention_mask: Any = None) -> Any: ...
    def save_pretrained(self, save_directory: Any) -> None: ...


class Callback(Protocol):
    """`callbacks.NAME`: hooks of `lightning.Callback`, which defines all of them."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None: ...
    def on_train_batch_end(self, trainer: Any, pl_module: Any, *more: Any) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class Logger(Protocol):
    """`logger.NAME`: methods of `lightning.pytorch.loggers.Logger`, which defines all of them."""

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None: ...
    def log_hyperparams(self, params: Any) -> None: ...
    def save(self) -> None: ...
    def finalize(self, status: str) -> None: ...


class Optimizer(Protocol):
    """`optim.optimizer`, called with parameter groups; see `torch.optim.Optimizer`."""

    param_groups: list[dict[str, Any]]

    def step(self, closure: Any = None) -> Any: ...
    def zero_grad(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class Schedule(Protocol):
    """`optim.scheduler`, called with the optimiser; see `torch.optim.lr_scheduler.LRScheduler`."""

    def step(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


def build_part(setting: str, node: DictConfig, interface: type, **more: Any) -> Any:
    """Instantiates a setting. Raises UserError if its class, or what its `_target_` returns, does not fit the interface."""
    check_class(setting, node, interface)
    part = instantiate(node, **more)
    check_part(setting, part, interface)
    return part


def check_class(setting: str, node: Mapping[Any, Any], interface: type) -> None:
    """Checks the methods of a class before it is instantiated. Raises UserError; functions as `_target_` are not checked."""
    try:
        target = get_object(node["_target_"])
    except Exception:  # none, or one that cannot be imported, which `instantiate` reports
        return
    if isinstance(target, type):
        methods = [name for name in _members(interface) if name not in interface.__annotations__]
        abstract = sorted(getattr(target, "__abstractmethods__", ()))
        _refuse(setting, target, [*(name for name in methods if not hasattr(target, name)), *abstract], interface)


def check_part(setting: str, part: Any, interface: type) -> None:
    """Raises UserError if an object lacks a method or an attribute of an interface."""
    _refuse(setting, type(part), [name for name in _members(interface) if not hasattr(part, name)], interface)


def _members(interface: type) -> list[str]:
    methods = [name for name, value in vars(interface).items() if callable(value)]
    own = [name for name in methods if not name.startswith("_") or name == "__call__"]
    return [*interface.__annotations__, *own]


def _refuse(setting: str, kind: type, missing: list[str], interface: type) -> None:
    if missing:
        names = ", ".join(dict.fromkeys(missing))
        raise UserError(
            f"{setting}={kind.__module__}.{kind.__qualname__}: has no {names}. Define it as in "
            f"pipelines.interfaces.{interface.__name__}; docs/extending.md has an example."
        )
