"""Batches of pairs: dataset, sampler, collation, perturbations and the DataModule."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clvp_train.data.datamodule import CLVPDataModule

__all__ = ["CLVPDataModule"]


def __getattr__(name: str) -> object:
    # on first use, because `Reranker` needs the collation but not Lightning
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from clvp_train.data import datamodule

    return getattr(datamodule, name)


def __dir__() -> list[str]:  # for the API reference
    return __all__
