"""Files of named arrays, npz and safetensors: no pickle is read, whatever a file is called."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from recdistill.bundle.tensors import read as read_tensors
from recdistill.errors import BundleError, DataError, nearest, problem

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["read_arrays", "read_folder", "read_ids", "suffix_of"]


def read_arrays(path: Path) -> Mapping[str, NDArray[Any]]:
    """The arrays of an npz or safetensors file by name; those of an npz are read when they are asked for.

    Raises:
        DataError: it cannot be read; also on asking for an array of Python objects.
    """
    if suffix_of(path) == ".safetensors":
        try:
            return _with_text(path, read_tensors(path).arrays())
        except BundleError as error:
            raise DataError(str(error)) from None
    if not zipfile.is_zipfile(path):
        raise DataError(problem(f"{path} cannot be read as npz: it is no archive", remedy="Write it with numpy.savez"))
    with _as_npz(path), np.load(path, allow_pickle=False) as file:
        return _Npz(path, frozenset(file.files))


class _Npz(Mapping[str, "NDArray[Any]"]):
    """What is never asked for is never read, whatever it is."""

    def __init__(self, path: Path, names: frozenset[str]) -> None:
        self._path, self._names = path, names

    @override
    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._names:
            raise KeyError(name)
        with _as_npz(self._path), np.load(self._path, allow_pickle=False) as file:
            return file[name]

    @override
    def __contains__(self, name: object) -> bool:
        return name in self._names

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    @override
    def __len__(self) -> int:
        return len(self._names)


@contextmanager
def _as_npz(path: Path) -> Generator[None]:
    """What goes wrong is an error of ours."""
    try:
        yield
    except ValueError as error:
        if "pickle" in str(error):
            raise DataError(
                problem(
                    f"{path} holds Python objects, which are never loaded: they can run code",
                    remedy="Write ids as an array of str (np.array(ids, dtype=str)) and pad lists of unequal length "
                    "with -1, or with '' where ids are text",
                )
            ) from None
        raise DataError(problem(f"{path} cannot be read as npz", str(error))) from None
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(problem(f"{path} cannot be read as npz", str(error))) from None


def read_ids(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """The arrays `users` and `items` of an npz or safetensors file: who the rows of a model are.

    Raises:
        DataError: it cannot be read, holds Python objects, or lacks one of them.
    """
    suffix_of(path)
    arrays = read_arrays(path)
    missing = [name for name in ("users", "items") if name not in arrays]
    if missing:
        raise DataError(problem(f"{path} has no array {missing[0]!r}", sorted(arrays), allowed="users, items"))
    return arrays["users"], arrays["items"]


def read_folder(folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a folder of npy files, by the name of the file.

    Raises:
        DataError: one cannot be read, or holds Python objects.
    """
    found: dict[str, NDArray[Any]] = {}
    for path in sorted(folder.glob("*.npy")):
        try:
            found[path.stem] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            remedy = "Write ids as an array of str: np.array(ids, dtype=str)" if "Python obj" in str(error) else None
            raise DataError(problem(f"{path} cannot be read as npy", str(error), remedy=remedy)) from None
    return found


def suffix_of(path: Path) -> str:
    """The ending of a file: ".parquet", ".csv", ".tsv", ".npz" or ".safetensors".

    Raises:
        DataError: no such file, or another format.
    """
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv", ".tsv", ".npz", ".safetensors"):
        remedy = None
        if suffix in (".pt", ".pth", ".pkl", ".pickle", ".joblib"):
            remedy = (
                "Pickles are never read; write the arrays as safetensors or npz (RecBole's checkpoints: recbole=...)"
            )
        elif suffix == ".npy":
            remedy = "Put users.npy, items.npy, user_vectors.npy and item_vectors.npy in a folder, and give the folder"
        raise DataError(
            problem(
                f"{path} has a format that a teacher is not read from",
                allowed=".parquet, .csv, .tsv, .npz, .safetensors",
                remedy=remedy,
            )
        )
    if not path.is_file():
        near = nearest(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else None
        raise DataError(problem(f"There is no file {path}", near=near))
    return suffix


def _with_text(path: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Text ids in safetensors, `users.bytes` and `users.offsets`, become `users`."""
    found = dict(arrays)
    for name in [n.removesuffix(".bytes") for n in arrays if n.endswith(".bytes")]:
        text, offsets = found.pop(f"{name}.bytes"), found.pop(f"{name}.offsets", None)
        if offsets is None or text.dtype != np.uint8 or offsets.dtype.kind not in "iu" or offsets.ndim != 1:
            raise DataError(problem(f"{path}: text ids are {name}.bytes (uint8) and {name}.offsets (integers)"))
        cuts = offsets.astype(np.int64)
        if len(cuts) == 0 or cuts[0] != 0 or cuts[-1] != len(text) or (np.diff(cuts) < 0).any():
            raise DataError(problem(f"{path}: {name}.offsets must ascend from 0 to {len(text)}"))
        whole, ends = text.tobytes(), cuts.tolist()
        try:
            ids = [whole[a:b].decode() for a, b in pairwise(ends)]
        except UnicodeDecodeError as error:
            raise DataError(problem(f"{path}: {name}.bytes is not utf-8", str(error))) from None
        found[name] = np.array(ids, dtype=object)
    return found
