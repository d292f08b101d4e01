"""Is one checkpoint really better than another? Paired over texts."""

from collections.abc import Sequence
from typing import Any

from clvp_train.evaluation.evaluator import PerText
from clvp_train.metrics import interval


def compare(found: Sequence[PerText]) -> list[dict[str, Any]]:
    """Every quantity that all have, of all checkpoints on the same data.

    Returns:
        {"quantity", "values": one a checkpoint, "differences": of all but the first to the first, {"value", "interval"}}.
        An interval that leaves 0 out says that the texts at hand tell the two apart.
    """
    first, *others = found
    return [
        {
            "quantity": name,
            "values": [float(values[name].mean()) for values in found],
            "differences": [
                {
                    "value": float((other[name] - values_N).mean()),
                    "interval": interval(other[name] - values_N),
                }
                for other in others
            ],
        }
        for name, values_N in first.items()
        if all(name in other for other in others)
    ]
