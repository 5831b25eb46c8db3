"""A bundle's vectors as files for others: npz, safetensors, or a folder of Parquet files, with external ids.

They are what `rd.teacher(vectors=...)` reads, so an exported student can teach. Vectors are float32, whatever the
bundle holds. Letters: U users, I items, d dims.
"""

from __future__ import annotations

import importlib
import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.bundle.folder import write_whole
from recdistill.bundle.tensors import read, write
from recdistill.errors import UsageError, problem
from recdistill.evaluation.tables import taken
from recdistill.evaluation.vectors import VectorRanker

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.bundle import Bundle
    from recdistill.ids import IdTable

__all__ = ["SUFFIXES", "read_vectors", "vectors_of", "write_vectors"]

SUFFIXES = (".npz", ".safetensors", "")
"""What a path for vectors may end with; without one it is a folder of `users.parquet` and `items.parquet`."""

_SIDES = ("user", "item")


def vectors_of(opened: Bundle) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(U, d) and (I, d) float32.

    Raises:
        UsageError: the model scores by something else than products of vectors.
    """
    if opened.manifest.kind != "vectors":
        what = f"A bundle of kind {opened.manifest.kind!r} has no vectors whose products are its scores"
        raise UsageError(problem(what, allowed="bundles of kind 'vectors'", remedy="Serve the bundle itself"))
    user, item = (taken(opened.arrays[side], opened.arrays.get(f"{side}.scale"), slice(None)) for side in _SIDES)
    return user, item


def write_vectors(opened: Bundle, path: Path) -> None:
    """Write a file, or fill an empty folder, that is not there yet; `path` decides by its suffix."""
    user, item = vectors_of(opened)
    if path.suffix == ".safetensors":
        write(path, {**_packed("users", opened.users), **_packed("items", opened.items)} | _named(user, item))
        return
    users, items = (table.external(np.arange(len(table))) for table in (opened.users, opened.items))
    if path.suffix == ".npz":
        with path.open("xb") as file:
            np.savez(file, users=_text(users), items=_text(items), user_vectors=user, item_vectors=item)
            file.flush()
            os.fsync(file.fileno())
        return
    polars: Any = _polars()
    for side, ids, vectors in (("user", users, user), ("item", items, item)):
        columns = {f"{side}_id": ids.tolist(), "vector": polars.Series(vectors, dtype=_list(polars, vectors))}
        buffer = io.BytesIO()  # polars has errors of its own for a disk that is full
        polars.DataFrame(columns).write_parquet(buffer)
        write_whole(path / f"{side}s.parquet", buffer.getvalue())


def read_vectors(path: Path) -> VectorRanker:
    """What was written, as a ranker in the rows of the bundle: for the check."""
    if path.suffix == ".safetensors":
        found: Any = read(path)
        return VectorRanker(found["user_vectors"], found["item_vectors"])
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return VectorRanker(archive["user_vectors"], archive["item_vectors"])
    polars: Any = _polars()
    tables = [polars.read_parquet(path / f"{side}s.parquet")["vector"].to_numpy() for side in _SIDES]
    return VectorRanker(np.ascontiguousarray(tables[0]), np.ascontiguousarray(tables[1]))


def _named(user: NDArray[np.float32], item: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    return {"user_vectors": user, "item_vectors": item}


def _packed(name: str, ids: IdTable) -> dict[str, NDArray[Any]]:
    arrays = ids.arrays()
    if ids.kind == "int":
        return {name: arrays["ids"]}
    return {f"{name}.bytes": arrays["bytes"], f"{name}.offsets": arrays["offsets"]}


def _text(ids: NDArray[Any]) -> NDArray[Any]:
    if ids.dtype == np.int64:
        return ids
    for one in ids.tolist():
        if one.endswith("\0"):
            remedy = "Give a path that ends with .safetensors, or a folder"
            raise UsageError(problem("An .npz file cuts NUL characters off the end of an id", one, remedy=remedy))
    return np.array(ids.tolist(), np.str_)  # no objects: they would be pickled


def _list(polars: Any, vectors: NDArray[np.float32]) -> Any:  # noqa: ANN401 - of a library imported where it is used
    return polars.Array(polars.Float32, vectors.shape[1])


def _polars() -> Any:  # noqa: ANN401 - as above
    try:
        return importlib.import_module("polars")
    except ImportError:
        what = "Writing Parquet needs polars, which is not installed"
        remedy = 'Install it: pip install "recdistill[train]"; or give a path that ends with .npz or .safetensors'
        raise UsageError(problem(what, remedy=remedy)) from None
