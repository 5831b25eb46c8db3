"""Fitted models of implicit and RecTools as teachers, through the public names they have; neither is imported.

Letters: U' users and I' items of the model, K list, d dims.
"""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from recdistill.errors import DataError, UsageError, problem
from recdistill.external import as_ids
from recdistill.teachers.archives import read_arrays, suffix_of
from recdistill.teachers.reading import Pairs, Tables

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.external import ExternalIds

__all__ = ["Saved", "of_implicit", "of_rectools"]


@runtime_checkable
class _Factors(Protocol):
    user_factors: Any
    item_factors: Any


@runtime_checkable
class _OnGpu(Protocol):
    def to_numpy(self) -> NDArray[Any]: ...


@runtime_checkable
class _Recommends(Protocol):
    recommend: Any


@runtime_checkable
class _Vectors(Protocol):
    u2i_dist: Any

    get_vectors: Any


@runtime_checkable
class _Mapped(Protocol):
    """A RecTools dataset."""

    user_id_map: Any
    item_id_map: Any


@dataclass(frozen=True, slots=True)
class Saved:
    """The factors of a model that implicit saved."""

    user_factors: NDArray[Any]
    item_factors: NDArray[Any]

    @classmethod
    def read(cls, path: Path) -> Saved:
        """From the npz of `model.save(path)`; nothing in it is run.

        Raises:
            DataError: no such file, Python objects in it, or no factors.
        """
        suffix_of(path)
        arrays = read_arrays(path)
        missing = [name for name in ("user_factors", "item_factors") if name not in arrays]
        if missing:
            remedy = "A model without factors has no vectors: write its lists, and give them as lists=..."
            raise DataError(problem(f"{path} has no array {missing[0]!r}", sorted(arrays), remedy=remedy))
        return cls(arrays["user_factors"], arrays["item_factors"])


def of_implicit(
    model: object, *, users: ExternalIds | None, items: ExternalIds | None, log: object | None, k: int
) -> Tables | Pairs:
    """A model of implicit: its factors, whose inner products are its scores, or its lists where it has none.

    Args:
        model: fitted; ALS, BPR and logistic MF have factors, the nearest neighbours lists alone.
        users: (U',) external ids of its user rows.
        items: (I',) external ids of its item rows.
        log: (U' x I') the matrix it was fitted on; for models without factors.
        k: how long such lists are.

    Raises:
        UsageError: no ids, no such model, or no log where one is needed.
        DataError: as many ids as rows are needed.
    """
    if users is None or items is None:
        remedy = "teacher(implicit=model, users=user_ids, items=item_ids), in the order of the matrix it was fitted on"
        raise UsageError(problem("A model of implicit knows rows, not ids", remedy=remedy))
    names = as_ids(users), as_ids(items)
    if isinstance(model, _Factors) and model.user_factors is not None and model.item_factors is not None:
        tables = [_array(each) for each in (model.user_factors, model.item_factors)]
        for side, ids, table in zip(("user", "item"), names, tables, strict=True):
            if table.ndim != 2 or len(table) != len(ids):
                what = f"The model has {side} factors of shape {table.shape} and {len(ids):,} {side} ids are given"
                raise DataError(problem(what, remedy="Give one id a row, in the order of the matrix it was fitted on"))
        return Tables(*names, *tables)
    if not isinstance(model, _Recommends):
        remedy = "Give a model of implicit, or its lists or vectors as files"
        raise UsageError(problem("This has neither factors nor `recommend`", type(model).__name__, remedy=remedy))
    if log is None:
        remedy = "teacher(implicit=model, users=..., items=..., log=user_items)"
        what = f"{type(model).__name__} has no factors: its lists need the matrix it was fitted on"
        raise UsageError(problem(what, remedy=remedy))
    found, scores = model.recommend(np.arange(len(names[0])), log, N=k, filter_already_liked_items=True)
    found = np.asarray(found)
    row, place = np.nonzero(found >= 0)
    item = found[row, place].astype(np.int64)
    if len(item) and item.max() >= len(names[1]):
        what = f"The model ranks item row {item.max()} and {len(names[1]):,} item ids are given"
        raise DataError(problem(what, remedy="Give one id a row"))
    return Pairs(*names, row, item, np.asarray(scores)[row, place].astype(np.float32), place.astype(np.int64))


def of_rectools(model: object, *, dataset: object | None, k: int) -> Tables | Pairs:
    """A model of RecTools: its vectors where scores are their inner products, else its lists.

    Args:
        model: fitted.
        dataset: the `Dataset` it was fitted on, which knows the ids.
        k: how long the lists are.

    Raises:
        UsageError: no such model or data set.
        DataError: the model recommends nothing.
    """
    if not isinstance(dataset, _Mapped):
        remedy = "teacher(rectools=model, dataset=dataset), with the Dataset it was fitted on"
        raise UsageError(problem("A model of RecTools needs its data set", type(dataset).__name__, remedy=remedy))
    users, items = (as_ids(np.asarray(m.external_ids)) for m in (dataset.user_id_map, dataset.item_id_map))
    if isinstance(model, _Vectors) and str(getattr(model.u2i_dist, "name", "")) == "DOT":
        needs = "dataset" in signature(model.get_vectors).parameters
        user, item = model.get_vectors(dataset) if needs else model.get_vectors()
        return Tables(users, items, np.asarray(user), np.asarray(item))
    if not isinstance(model, _Recommends):
        remedy = "Give a model of RecTools, or its lists as a file"
        raise UsageError(problem("This has no `recommend`", type(model).__name__, remedy=remedy))
    found = model.recommend(users, dataset, k=k, filter_viewed=True, on_unsupported_targets="ignore")
    who, what = (as_ids(found[name].to_numpy()) for name in ("user_id", "item_id"))
    if not len(who):
        raise DataError(problem(f"{type(model).__name__} recommends nothing to the {len(users):,} users of its data"))
    (known, user), (listed, item) = (np.unique(ids, return_inverse=True) for ids in (who, what))
    rank = found["rank"].to_numpy().astype(np.int64) - 1
    score = found["score"].to_numpy().astype(np.float32)
    return Pairs(known, listed, user.reshape(-1), item.reshape(-1), score, rank)


def _array(table: object) -> NDArray[Any]:
    """Factors as numpy, from a GPU too."""
    return table.to_numpy() if isinstance(table, _OnGpu) else np.asarray(table)
