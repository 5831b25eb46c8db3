"""What has to be true of a bundle's parts, before it is written and whenever it is opened.

Letters: U users, I items, n stored interactions, P popular items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from recdistill.bundle.hnsw import checked
from recdistill.bundle.mapped import release
from recdistill.errors import BundleError, problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.bundle.ann import IndexPart
    from recdistill.bundle.hnsw import Vectors
    from recdistill.bundle.manifest import EncoderEntry
    from recdistill.data.csr import Csr
    from recdistill.data.histories import Histories
    from recdistill.ids import IdTable

__all__ = ["Spec", "contents", "finite", "histories", "ids", "index", "rows", "shapes", "vectors_of"]

_TABLES: dict[str, dict[str, Literal["users", "items"]]] = {
    "vectors": {"user": "users", "item": "items"},
    "neumf": {"user_mf": "users", "item_mf": "items", "user_mlp": "users", "item_mlp": "items"},
}
_CHUNK = 1 << 16

Spec = tuple[np.dtype[Any], tuple[int, ...]]
_Ids = tuple[str, int]  # kind, length


def shapes(
    where: str,
    specs: Mapping[str, Mapping[str, Spec]],
    kind: str,
    users: _Ids,
    items: _Ids,
    *,
    encoder: EncoderEntry | None = None,
) -> None:
    """Types and shapes of everything, from headers alone."""
    sizes = {"users": users[1], "items": items[1]}
    expected: dict[str, dict[str, Spec]] = {
        "users.safetensors": _id_specs(specs["users.safetensors"], users),
        "items.safetensors": _id_specs(specs["items.safetensors"], items),
        "popular.safetensors": {"items": (np.dtype(np.int64), _first(specs["popular.safetensors"], "items"))},
        "seen.safetensors": {
            "indptr": (np.dtype(np.int64), (sizes["users"] + 1,)),
            "indices": (np.dtype(np.int32), _first(specs["seen.safetensors"], "indices")),
        },
    }
    if encoder is not None:
        expected["histories.safetensors"] = {
            "indptr": (np.dtype(np.int64), (sizes["users"] + 1,)),
            "items": (np.dtype(np.int32), _first(specs["histories.safetensors"], "items")),
        }
    if "trained" in specs["seen.safetensors"]:
        expected["seen.safetensors"]["trained"] = (np.dtype(np.uint8), expected["seen.safetensors"]["indices"][1])
    for file, wanted in expected.items():
        if specs[file] != wanted:
            raise BundleError(
                problem(
                    f"{where}: {file} must hold {_listed(wanted)}", _listed(specs[file]), remedy="Save the bundle again"
                )
            )
    if _first(specs["popular.safetensors"], "items")[0] > sizes["items"]:
        raise BundleError(problem(f"{where}: the popular list is longer than the {sizes['items']:,} items"))
    tensors = specs["tensors.safetensors"]
    for name, side in _TABLES.get(kind, {}).items():
        dtype, shape = tensors.get(name, (None, ()))
        compact = kind == "vectors" and _compact(where, tensors, name)
        if dtype is None or not (compact or dtype.kind == "f") or len(shape) != 2 or shape[0] != sizes[side]:
            raise BundleError(
                problem(
                    f"{where}: the array {name!r} of kind {kind!r} must be floats of shape ({sizes[side]}, d)",
                    f"{dtype} {list(shape)}" if dtype is not None else "absent",
                )
            )
    if kind == "vectors" and tensors["user"][1][1] != tensors["item"][1][1]:
        raise BundleError(
            problem(f"{where}: 'user' has {tensors['user'][1][1]} dimensions and 'item' has {tensors['item'][1][1]}")
        )
    if encoder is not None:
        _table(where, tensors, kind, encoder, sizes["items"])


def _compact(where: str, tensors: Mapping[str, Spec], name: str) -> bool:
    """Whether an array is int8; then its scales must stand beside it, else none may."""
    dtype, shape = tensors.get(name, (None, ()))
    compact, scales = dtype == np.dtype(np.int8), tensors.get(f"{name}.scale")
    wanted = (np.dtype(np.float32), shape[:1]) if compact else None
    if scales != wanted:
        told = f"float32 scales of shape {list(shape[:1])}" if compact else "no scales, for it is not int8"
        found = "absent" if scales is None else f"{scales[0]} {list(scales[1])}"
        raise BundleError(problem(f"{where}: the array {name!r} needs {told}", found, remedy="Save the bundle again"))
    return compact


def _table(where: str, tensors: Mapping[str, Spec], kind: str, encoder: EncoderEntry, n_items: int) -> None:
    if kind != "vectors":
        raise BundleError(problem(f"{where}: an encoder goes with arrays of kind 'vectors'", kind))
    dtype, shape = tensors.get(encoder.table, (None, ()))
    compact = _compact(where, tensors, encoder.table)
    floats = dtype is not None and (dtype.kind == "f" or compact)
    if not floats or len(shape) != 2 or shape[0] != n_items or shape[1] < encoder.width:
        raise BundleError(
            problem(
                f"{where}: the encoder reads {encoder.table!r}, floats of shape ({n_items}, {encoder.width} or more)",
                f"{dtype} {list(shape)}" if dtype is not None else "absent",
            )
        )
    if encoder.gives != tensors["item"][1][1]:
        raise BundleError(
            problem(f"{where}: the encoder gives {encoder.gives} dimensions and 'item' has {tensors['item'][1][1]}")
        )


def _id_specs(found: Mapping[str, Spec], ids: _Ids) -> dict[str, Spec]:
    kind, n = ids
    integers = np.dtype(np.int64)
    if kind == "int":
        return {"ids": (integers, (n,)), "order": (integers, (n,))}
    return {
        "bytes": (np.dtype(np.uint8), _first(found, "bytes")),
        "offsets": (integers, (n + 1,)),
        "order": (integers, (n,)),
    }


def _first(found: Mapping[str, Spec], name: str) -> tuple[int]:
    """Whatever length an array of free length has; 0 where it is absent or not one-dimensional."""
    shape = found[name][1] if name in found else ()
    return (shape[0],) if len(shape) == 1 else (0,)


def _listed(specs: Mapping[str, Spec]) -> str:
    return ", ".join(f"{name} {dtype} {list(shape)}" for name, (dtype, shape) in sorted(specs.items()))


def rows(where: str, seen: Csr, popular: NDArray[np.int64], n_items: int) -> None:
    """Where rows begin, and the popular list: cheap enough for every opening. O(U + P), no array of that size."""
    _in_order(where, "seen", seen.indptr, len(seen.indices))
    for at in range(0, len(popular), _CHUNK):
        part = popular[at : at + _CHUNK]
        if part.min() < 0 or part.max() >= n_items:
            raise BundleError(
                problem(f"{where}: the popular list holds a row that is no item", allowed=f"0 to {n_items - 1}")
            )


def histories(where: str, stored: Histories, n_items: int, *, whole: bool) -> None:
    """Where histories begin; `whole`: every stored item too. O(U) or O(n)."""
    _in_order(where, "histories", stored.indptr, len(stored.items))
    for at in range(0, len(stored.items) if whole else 0, _CHUNK):
        part = stored.items[at : at + _CHUNK]
        if part.min() < 0 or part.max() >= n_items:
            raise BundleError(problem(f"{where}: a history holds a row that is no item", allowed=f"0 to {n_items - 1}"))


def _in_order(where: str, what: str, indptr: NDArray[np.int64], n: int) -> None:
    ascending = all(
        bool((indptr[at + 1 : at + 1 + _CHUNK] >= indptr[at : at + _CHUNK][: len(indptr) - at - 1]).all())
        for at in range(0, len(indptr) - 1, _CHUNK)
    )
    if not ascending or indptr[0] != 0 or indptr[-1] != n:
        raise BundleError(
            problem(
                f"{where}: the rows of {what!r} are not in order",
                f"{int(indptr[0])} ... {int(indptr[-1])}",
                allowed=f"0 ascending to {n}",
            )
        )


def contents(where: str, seen: Csr, popular: NDArray[np.int64]) -> None:
    """Every stored item. O(n)."""
    starts = np.zeros(len(seen.indices) + 1, np.bool_)
    starts[seen.indptr] = True
    for at in range(0, len(seen.indices), _CHUNK):
        part = seen.indices[at : at + _CHUNK + 1]
        if part.min() < 0 or part.max() >= seen.n_columns:
            raise BundleError(
                problem(f"{where}: 'seen' holds a row that is no item", allowed=f"0 to {seen.n_columns - 1}")
            )
        if not ((part[1:] > part[:-1]) | starts[at + 1 : at + len(part)]).all():
            raise BundleError(problem(f"{where}: the items of a row of 'seen' are not ascending and distinct"))
    if len(np.unique(popular)) != len(popular):
        raise BundleError(problem(f"{where}: the popular list names an item twice"))


def finite(where: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Every float of the model's arrays; scales are no less than 0 too. Reads all of them, a chunk at a time."""
    for name, array in arrays.items():
        flat = array.reshape(-1)
        for at in range(0, len(flat) if array.dtype.kind == "f" else 0, _CHUNK * 16):
            part = flat[at : at + _CHUNK * 16]
            if not np.isfinite(part).all():
                raise BundleError(
                    problem(f"{where}: the array {name!r} holds a number that is not finite", remedy="Train again")
                )
            if name.endswith(".scale") and part.min() < 0:
                raise BundleError(problem(f"{where}: the scales {name!r} hold a negative number"))
            release(part)


def index(path: Path, part: IndexPart, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Every byte of an approximate index: its hash, and what the library will follow."""
    checked(str(path), part.data(), vectors_of(arrays, "item"), cast("tuple[int, int]", arrays["item"].shape))


def vectors_of(arrays: Mapping[str, NDArray[Any]], name: str) -> Vectors:
    """Rows -> (m, d) float32: the vectors of a table that may be int8 with scales."""
    table, scale = arrays[name], arrays.get(f"{name}.scale")

    def rows(wanted: NDArray[np.int64]) -> NDArray[np.float32]:
        part = np.take(table, wanted, axis=0)
        return np.asarray(part, np.float32) if scale is None else part * np.take(scale, wanted)[:, None]

    return rows


def ids(path: Path, ids: IdTable) -> None:
    """Every id is found at its own row: so bytes, offsets and the sort permutation are sound."""
    broken = BundleError(problem(f"The id table {path} does not find its own ids", remedy="Install the bundle again"))
    if ids.kind == "str":
        offsets = ids.arrays()["offsets"]
        if (np.diff(offsets) < 0).any():
            raise broken
    order = ids.arrays()["order"]
    if len(order) and (order.min() < 0 or order.max() >= len(order)):
        raise broken
    for at in range(0, len(ids), _CHUNK):
        rows = np.arange(at, min(at + _CHUNK, len(ids)))
        try:
            found = ids.rows(ids.external(rows))
        except UnicodeDecodeError:
            raise broken from None
        if not np.array_equal(found, rows):
            raise broken
