"""Files of a foreign recommender -> plain arrays with external ids. No pickle is read, whatever a file is called.

Letters: n rows, U' users and I' items of the file, R list, d dims.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from recdistill.data.formats.roles import ALIASES, canonical
from recdistill.errors import DataError, nearest, problem
from recdistill.teachers.archives import read_arrays, read_folder, suffix_of
from recdistill.teachers.columns import columns_of, finite, ids_of, ranks_of, scores_of
from recdistill.teachers.frames import FRAMES, read_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl
    from numpy.typing import NDArray

__all__ = ["Pairs", "Tables", "read_pairs", "read_tables"]

_PAIR_NAMES: dict[str, tuple[str, ...]] = {
    "user": (*ALIASES["user"], "users", "user_ids"),
    "item": (*ALIASES["item"], "items", "item_ids"),
    "score": ("score", "scores", "prediction", "relevance", *ALIASES["weight"]),
    "rank": ("rank", "ranks", "position"),
}
_TABLE_NAMES = {
    "users": ("users", "user_ids", "user_id"),
    "items": ("items", "item_ids", "item_id"),
    "user_vectors": ("user_vectors", "user_factors", "user_embeddings", "user"),
    "item_vectors": ("item_vectors", "item_factors", "item_embeddings", "item"),
}
_ID_NAMES = (*ALIASES["user"], *ALIASES["item"], "id")
_VECTOR_NAMES = ("vector", "embedding", "factors", "values")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Lists or scores in long form: n rows of distinct users' numbers and distinct items' numbers."""

    users: NDArray[Any]
    """(U',) distinct external ids."""
    items: NDArray[Any]
    """(I',)"""
    user: NDArray[np.int64]
    """(n,) places in `users`."""
    item: NDArray[np.int64]
    """(n,) places in `items`."""
    score: NDArray[np.float32] | None
    """(n,)"""
    rank: NDArray[np.int64] | None
    """(n,) from 0; None where the score, or the order of the rows, decides."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Vectors of users and items."""

    users: NDArray[Any]
    """(U',) external ids."""
    items: NDArray[Any]
    user: NDArray[Any]
    """(U', d) floats."""
    item: NDArray[Any]
    """(I', d) floats."""


def read_pairs(path: Path) -> Pairs:
    """A Parquet, CSV or TSV file of rows, Parquet of list columns, or npz or safetensors of `users`, `items`, `scores`.

    Raises:
        DataError: no such file, a format, column, id, score or rank that cannot be used.
    """
    if suffix_of(path) in FRAMES:
        return _pairs_of_frame(path)
    arrays = _named(path, read_arrays(path), {"users": _TABLE_NAMES["users"], "items": _TABLE_NAMES["items"]})
    return _pairs_of_arrays(path, arrays)


def read_tables(path: Path) -> Tables:
    """An npz or safetensors file, a folder of npy files or of two Parquet files, or a table with a column `side`.

    Raises:
        DataError: no such file, a format, column, id or vector that cannot be used.
    """
    if path.is_dir() and (here := read_folder(path)):
        arrays = _named(path, here, _TABLE_NAMES)
        (users, items), (user, item) = (
            (arrays["users"], arrays["items"]),
            (arrays["user_vectors"], arrays["item_vectors"]),
        )
    elif path.is_dir():
        found = {side: _side_file(path, side) for side in ("users", "items")}
        (users, user), (items, item) = (_vectors_of_frame(found[s], read_frame(found[s])) for s in ("users", "items"))
    elif suffix_of(path) in FRAMES:
        (users, user), (items, item) = _both_sides(path)
    else:
        arrays = _named(path, read_arrays(path), _TABLE_NAMES)
        users, items = arrays["users"], arrays["items"]
        user, item = arrays["user_vectors"], arrays["item_vectors"]
    for what, ids, vectors in (("user", users, user), ("item", items, item)):
        if vectors.ndim != 2 or vectors.dtype.kind != "f" or len(vectors) != len(ids) or ids.ndim != 1:
            raise DataError(
                problem(
                    f"{path}: the {what} vectors must be floats of shape ({len(ids)}, d), one for each id",
                    f"{vectors.dtype} {vectors.shape}",
                    remedy="Write them as float32: vectors.astype('float32')" if vectors.dtype.kind in "iub" else None,
                )
            )
    if user.shape[1] == 0 or item.shape[1] == 0:
        raise DataError(problem(f"{path}: the vectors have no dimension", remedy="Write at least one number a vector"))
    if user.shape[1] != item.shape[1]:
        raise DataError(
            problem(f"{path}: users have {user.shape[1]} dimensions and items {item.shape[1]}; they must be equal")
        )
    return Tables(users, items, user, item)


# Parquet


def _pairs_of_frame(path: Path) -> Pairs:
    import polars as pl  # noqa: PLC0415

    frame = read_frame(path)
    names = columns_of(path, frame.columns, _PAIR_NAMES, needed=("user", "item"))
    frame = frame.select(**{role: pl.col(name) for role, name in names.items()})
    if isinstance(frame.schema["item"], pl.List):
        if "rank" in names:
            raise DataError(problem(f"{path}: a list column is in order already; drop the column {names['rank']!r}"))
        if "score" in names and not (frame["item"].list.len() == frame["score"].list.len()).all():
            raise DataError(
                problem(
                    f"{path}: lists of items and of scores have unequal lengths",
                    remedy="Write one score for each item of a list",
                )
            )
        frame = frame.explode([role for role in ("item", "score") if role in names]).filter(
            pl.col("item").is_not_null()
        )
    if len(frame) == 0:
        raise DataError(problem(f"{path} has no rows", remedy="Write one row for each user and item of a list"))
    (users, user), (items, item) = (_numbered(path, names[r], frame[r]) for r in ("user", "item"))
    score = scores_of(path, names["score"], frame["score"]) if "score" in names else None
    rank = ranks_of(path, names["rank"], frame["rank"], user) if "rank" in names else None
    return Pairs(users, items, user, item, score, rank)


def _numbered(path: Path, name: str, column: pl.Series) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """A column of ids -> its distinct ids, and the place of each row's among them."""
    import polars as pl  # noqa: PLC0415

    ids = ids_of(path, name, column)
    distinct = ids.unique(maintain_order=True)
    place = pl.DataFrame({"id": distinct, "place": np.arange(len(distinct))})
    found = ids.to_frame("id").join(place, on="id", how="left", maintain_order="left")["place"].to_numpy()
    return _external(distinct), found.astype(np.int64, copy=False)


def _external(column: pl.Series) -> NDArray[Any]:
    return column.to_numpy() if column.dtype.is_integer() else np.array(column.to_list(), dtype=object)


def _vectors_of_frame(path: Path, frame: pl.DataFrame) -> tuple[NDArray[Any], NDArray[Any]]:
    """A table of one side: an id column, and a list column or one number column for each dimension."""
    import polars as pl  # noqa: PLC0415

    ids = [name for name in frame.columns if canonical(name) in {canonical(alias) for alias in _ID_NAMES}]
    if len(ids) != 1:
        raise DataError(
            problem(f"{path} needs one column of ids", ids or list(frame.columns)[:10], allowed=", ".join(_ID_NAMES))
        )
    rest = [name for name in frame.columns if name != ids[0]]
    nested = [name for name in rest if isinstance(frame.schema[name], pl.List | pl.Array)]
    if nested:
        named = [n for n in nested if canonical(n) in _VECTOR_NAMES] or nested
        if len(named) != 1:
            raise DataError(problem(f"{path}: {len(named)} columns could be the vector: {', '.join(named)}"))
        column = frame[named[0]]
        if isinstance(column.dtype, pl.List):
            lengths = column.list.len()
            if column.null_count() or lengths.n_unique() != 1:
                raise DataError(
                    problem(
                        f"{path}: the vectors in column {named[0]!r} have unequal lengths or gaps",
                        lengths.unique().to_list()[:5],
                    )
                )
            column = column.list.to_array(int(cast("int", lengths[0])))
        vectors = column.to_numpy()
    else:
        wrong = [name for name in rest if not frame.schema[name].is_numeric()]
        if wrong or not rest:
            what = f"{path}: column {wrong[0]!r} is no number" if wrong else f"{path} has no columns of numbers"
            raise DataError(problem(what, remedy="Keep the ids and one column for each dimension, or one list column"))
        vectors = frame.select(rest).to_numpy()
    vectors = np.asarray(vectors)
    if vectors.dtype.kind != "f":
        vectors = vectors.astype(np.float32)
    return _external(ids_of(path, ids[0], frame[ids[0]])), vectors


def _side_file(folder: Path, side: str) -> Path:
    path = folder / f"{side}.parquet"
    if not path.is_file():
        raise DataError(
            problem(
                f"{folder} has no {side}.parquet",
                allowed="a folder of users.parquet and items.parquet, each of an id and its vector",
            )
        )
    return path


def _both_sides(path: Path) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    import polars as pl  # noqa: PLC0415

    frame = read_frame(path)
    side = next((name for name in frame.columns if canonical(name) == "side"), None)
    if side is None:
        raise DataError(
            problem(
                f"{path} has no column 'side' that says which rows are users and which are items",
                list(frame.columns)[:10],
                remedy="Add it ('user' or 'item'), or give a folder of users.parquet and items.parquet",
            )
        )
    parts = [frame.filter(pl.col(side).cast(pl.String).str.to_lowercase() == s).drop(side) for s in ("user", "item")]
    if len(parts[0]) + len(parts[1]) != len(frame) or not len(parts[0]) or not len(parts[1]):
        raise DataError(
            problem(
                f"{path}: column {side!r} must say 'user' or 'item', and both must occur",
                frame[side].unique().to_list()[:5],
            )
        )
    return _vectors_of_frame(path, parts[0]), _vectors_of_frame(path, parts[1])


# npz and safetensors


def _named(
    path: Path, arrays: Mapping[str, NDArray[Any]], wanted: Mapping[str, Sequence[str]]
) -> dict[str, NDArray[Any]]:
    found = {key: arrays[key] for key in ("scores", "score") if key in arrays}  # the rest is not read
    for role, names in wanted.items():
        name = next((n for n in names if n in arrays), None)
        if name is None:
            raise DataError(
                problem(
                    f"{path} has no array {role!r}",
                    sorted(arrays),
                    allowed=", ".join(names),
                    near=nearest(role, arrays),
                )
            )
        found[role] = arrays[name]
    return found


def _pairs_of_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> Pairs:
    users, items = arrays["users"], arrays["items"]
    scores = arrays.get("scores", arrays.get("score"))
    for name, ids in (("users", users), ("items", items)):
        if ids.dtype.kind not in "iuUTO":
            raise DataError(problem(f"{path}: the ids in {name!r} are of type {ids.dtype}", allowed="integers or text"))
    if users.ndim != 1 or items.ndim != 2 or len(items) != len(users):
        raise DataError(
            problem(
                f"{path}: lists are users (U,) and items (U, R), best first, padded with -1 or ''",
                f"users {users.shape}, items {items.shape}",
            )
        )
    if scores is not None and scores.shape != items.shape:
        raise DataError(problem(f"{path}: scores must have the shape of items, {items.shape}", scores.shape))
    there = items >= 0 if items.dtype.kind in "iu" else items.astype(object) != ""
    row, column = np.nonzero(there)
    if len(row) == 0:
        raise DataError(problem(f"{path} has no rows", remedy="Of each user's row, -1 or '' is no item: write some"))
    distinct, place = np.unique(items[there], return_inverse=True)
    score = None if scores is None else finite(path, scores[there])
    return Pairs(
        users,
        distinct,
        row,
        place.reshape(-1).astype(np.int64),
        score,
        column.astype(np.int64) if score is None else None,
    )
