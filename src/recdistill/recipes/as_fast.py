"""Hand-made students that are as fast as a searched one: the largest whose body takes no longer in onnxruntime.

Depth, width and the inside of a block are tried; no candidate is wider than the searched students, so that none has
dearer scores of items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recdistill.models import MODELS
from recdistill.models.sequential import Sequential
from recdistill.recipes.onnx_times import onnx_times
from recdistill.settings import parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recdistill.data.interactions import Interactions

    Built = tuple[str, Mapping[str, Any]]

__all__ = ["CANDIDATES", "as_fast", "built"]

CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "nextitnet": [
        {"dim": dim, "groups": groups, "dilations": list(dilations), "tied": True}
        for dim in (32, 64)
        for groups in (1, 2, 3, 4)
        for dilations in ((1,), (1, 4))
    ],
    "sasrec": [
        {"dim": dim, "layers": layers, "heads": 2, "inner": times * dim}
        for dim in (32, 64)
        for layers in (1, 2, 3, 4)
        for times in (1, 4)
    ],
}
"""Settings by model."""


def as_fast(
    searched: Built, train: Interactions, *, length: int = 50, candidates: Mapping[str, Sequence[dict[str, Any]]]
) -> dict[str, Any]:
    """Time all candidates and the searched student in turns, one history of `length` at a time.

    Returns:
        "ms" of the searched body, and each model's "student", its settings, with its own "ms": the one of most
        parameters in its body among those that take no longer, else the fastest.
    """
    names = {f"{model} {at}": (model, c) for model, each in candidates.items() for at, c in enumerate(each)}
    models = {name: built(one, train, length=length) for name, one in {"searched": searched, **names}.items()}
    times = onnx_times(models, train, batches=(1,), length=length)
    ms = {name: each["1"]["body"] for name, each in times.items()}
    out: dict[str, Any] = {"ms": ms["searched"]}
    for model in candidates:
        mine = [name for name, (kind, _) in names.items() if kind == model]
        within = [name for name in mine if ms[name] <= ms["searched"]]
        best = max(within, key=lambda name: models[name].n_body, default=min(mine, key=lambda name: ms[name]))
        out[model] = {"student": names[best][1], "ms": ms[best]}
    return out


def built(one: Built, train: Interactions, *, length: int = 50) -> Sequential:
    """A model with weights as they are drawn."""
    name, given = one
    settings = {"length": length, **given}
    model = MODELS[name].build(parse(MODELS[name].settings, settings), train.n_users, train.n_items, 0, train)
    assert isinstance(model, Sequential)  # noqa: S101 - all rows are
    return model
