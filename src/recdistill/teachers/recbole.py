"""Checkpoints of RecBole 1.x (`saved/BPR-....pth`), read without running anything in them.

Such a file is a zip of raw tensors and one pickle. `torch.load(weights_only=True)` refuses it, since RecBole puts its
whole configuration beside the weights; `inert` reads the pickle as symbols, and the tensors are read here as bytes.
Which rows are which users and items is not in it, but in the data set that RecBole writes with `save_dataset: True`.

Models whose scores are inner products of what the file holds can be read; for the others,
`examples/recbole_lists.py` writes lists in RecBole's own environment.
"""

from __future__ import annotations

import math
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.errors import DataError, problem
from recdistill.teachers.archives import read_ids
from recdistill.teachers.inert import Global, Made, Stored, interpreted
from recdistill.teachers.reading import Tables

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["SERVED", "read_recbole"]

SERVED = {
    "BPR": ("state_dict", "user_embedding.weight", "item_embedding.weight"),
    **dict.fromkeys(
        ("LightGCN", "NGCF", "SGL", "NCL", "DGCF", "SpectralCF"),
        ("other_parameter", "restore_user_e", "restore_item_e"),
    ),
}
"""Model -> where its checkpoint holds the vectors whose inner products are its scores."""

_KINDS = {"Float": "<f4", "Double": "<f8", "Half": "<f2"}
_ELSEWHERE = "Write its lists in RecBole's environment with examples/recbole_lists.py, and give them as lists=..."


def read_recbole(path: Path, ids: Path) -> Tables:
    """The vectors of a checkpoint, with external ids.

    Args:
        path: the checkpoint.
        ids: the data set that RecBole saved beside it (`save_dataset: True`), `saved/<name>-Dataset.pth`; or an npz or
            safetensors file of `users` and `items`, the tokens of rows 1, 2, ...: row 0 is RecBole's padding.

    Raises:
        DataError: a file that is something else, names what no checkpoint needs, or holds a model whose scores are no
            inner products.
    """
    if not path.is_file():
        raise DataError(problem(f"There is no file {path}"))
    if not zipfile.is_zipfile(path):
        what = f"{path} is no checkpoint as torch 1.6 and later writes it: it is no zip"
        raise DataError(problem(what, remedy="Give the file of `saved/`, such as BPR-Nov-21-2026_15-27-53.pth"))
    try:
        with zipfile.ZipFile(path) as archive:
            user, item = _vectors(_Archive(path, archive))
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise DataError(problem(f"{path} cannot be read as a checkpoint", str(error))) from None
    users, items = _tokens(ids)
    for side, tokens, vectors in (("user", users, user), ("item", items, item)):
        if len(tokens) != len(vectors):
            what = f"{path} has {len(vectors):,} {side}s and {ids} names {len(tokens):,}"
            raise DataError(problem(what, remedy="Give the data set that was saved when the model was trained"))
    return Tables(users, items, user, item)


def _vectors(archive: _Archive) -> tuple[NDArray[Any], NDArray[Any]]:
    path, whole = archive.path, interpreted(archive.path, archive.entry("data.pkl"))
    config = whole.get("config") if isinstance(whole, dict) else None
    if not isinstance(whole, dict) or not isinstance(config, Made) or not isinstance(config.state, dict):
        what = f"{path} is no checkpoint of RecBole: it has no configuration"
        raise DataError(
            problem(what, remedy="Of another torch checkpoint write the tables as safetensors: vectors=...")
        )
    model = config.state.get("final_config_dict", {}).get("model")
    if model not in SERVED:
        what = f"{path} holds a {model}, whose scores are no inner products of vectors in the file"
        raise DataError(problem(what, allowed=sorted(SERVED), remedy=_ELSEWHERE))
    part, *names = SERVED[model]
    held = whole.get(part)
    table: dict[Any, Any] = held.items if isinstance(held, Made) else held if isinstance(held, dict) else {}
    found: list[NDArray[Any]] = []
    for name in names:
        tensor = table.get(name)
        if not isinstance(tensor, Made):
            what = f"{path}: the {model} has no {name!r} in its {part}"
            remedy = "RecBole computes it when it validates; train with validation, or: " + _ELSEWHERE
            raise DataError(problem(what, sorted(map(str, table))[:5], remedy=remedy))
        found.append(archive.matrix(name, tensor)[1:])
    return found[0], found[1]


class _Archive:
    """The zip of a checkpoint: a pickle, and raw storages."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self._archive = path, archive
        self._entries = {entry.filename: entry for entry in archive.infolist()}
        main = [name for name in self._entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(main) != 1:
            raise DataError(problem(f"{path} is no checkpoint of torch: it holds no data.pkl", list(self._entries)[:5]))
        self._root = main[0].removesuffix("data.pkl")
        self._little = f"{self._root}byteorder" not in self._entries or self.entry("byteorder").strip() == b"little"

    def entry(self, name: str) -> bytes:
        """An entry's bytes; torch stores them as they are, so none is larger than the file."""
        entry = self._entries.get(f"{self._root}{name}")
        if entry is None:
            raise DataError(problem(f"{self.path}: the archive has no {name!r}"))
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > self.path.stat().st_size:
            what = f"{self.path}: {name!r} is compressed, or larger than the file"
            raise DataError(problem(what, entry.file_size))
        return self._archive.read(entry)

    def matrix(self, name: str, made: Made) -> NDArray[Any]:
        """A contiguous (R, d) matrix of floats."""
        if made.name == "torch._utils._rebuild_parameter" and made.args and isinstance(made.args[0], Made):
            made = made.args[0]
        what = f"{self.path}: {name!r} is no matrix of floats"
        if made.name != "torch._utils._rebuild_tensor_v2" or len(made.args) < 4 or not isinstance(made.args[0], Stored):
            raise DataError(problem(what, made.name or None))
        match made.args[0].id:
            case ("storage", Global(name=kind), str(key), _, int(size)):
                dtype = _KINDS.get(kind.removeprefix("torch.").removesuffix("Storage"))
            case _:
                raise DataError(problem(what))
        offset, shape, stride = made.args[1:4]
        fits = all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *stride)) and len(shape) == 2
        if dtype is None or not fits or tuple(stride) != (shape[1], 1) or offset + math.prod(shape) > size:
            raise DataError(problem(what, f"{kind}, shape {shape}, stride {stride}"))
        data = self.entry(f"data/{key}")
        numbers = np.dtype(dtype if self._little else dtype.replace("<", ">"))
        if len(data) != size * numbers.itemsize:
            what = f"{self.path}: {name!r} has {len(data):,} bytes, not {size * numbers.itemsize:,}"
            raise DataError(problem(what))
        values = np.frombuffer(data, numbers, count=math.prod(shape), offset=offset * numbers.itemsize)
        return values.reshape(shape).astype(np.float64 if numbers.itemsize == 8 else np.float32)


def _tokens(ids: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """External ids of rows 1, 2, ..."""
    if ids.suffix.lower() in (".npz", ".safetensors"):
        return read_ids(ids)
    if not ids.is_file():
        remedy = "RecBole writes it with `save_dataset: True`; or write an npz of `users` and `items`"
        raise DataError(problem(f"There is no file {ids}", remedy=remedy))
    data = interpreted(ids, ids.read_bytes())
    if not isinstance(data, Made) or not isinstance(data.state, dict):
        raise DataError(problem(f"{ids} is no data set that RecBole saved"))
    tokens = data.state.get("field2token_id", {})
    found: list[NDArray[Any]] = []
    for side in ("uid_field", "iid_field"):
        rows = tokens.get(data.state.get(side)) if isinstance(tokens, dict) else None
        if not isinstance(rows, dict) or sorted(rows.values()) != list(range(len(rows))):
            raise DataError(problem(f"{ids} is no data set that RecBole saved: it has no tokens of {side}"))
        in_order = sorted(rows, key=rows.__getitem__)[1:]  # without the padding
        found.append(np.array([str(token) for token in in_order], dtype=object))
    return found[0], found[1]
