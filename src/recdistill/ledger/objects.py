"""What stages put out: folders named by what they were made from, which appear whole or not at all.

    objects/<key>/tensors.safetensors    named arrays
    objects/<key>/about.json             stage, cycle, inputs, measured values, and where people stand in the arrays

A key is the hash of the stage, its settings and the keys of its inputs; equal keys are equal bytes. Only forgetting a
person changes an object: it is then replaced in one step, under its old key.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.bundle.folder import replaced, write_whole
from recdistill.bundle.tensors import read, write
from recdistill.errors import DataError, problem
from recdistill.ledger.folders import tidy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Objects", "Personal", "Stored", "key_of"]

_ARRAYS, _ABOUT = "tensors.safetensors", "about.json"
_DIGITS = 32
_REMEDY = (
    "it from a copy: `recdistill stream step` makes again what an unfinished cycle lacks, "
    "but not what a finished one has left, such as its holdout"
)


@dataclass(frozen=True, slots=True)
class Personal:
    """Where people stand in named arrays, so that a person can be taken out of them."""

    rows: tuple[str, ...] = ()
    """Arrays whose first axis is the user row: the row is emptied (0; -1 in arrays of integers)."""
    values: tuple[str, ...] = ()
    """Arrays of integers that hold user rows: the entry becomes -1, "none"."""
    records: tuple[tuple[str, ...], ...] = ()
    """Groups of arrays of one length, the first of which holds user rows: the entries are removed."""
    sparse: tuple[tuple[str, str], ...] = ()
    """(indptr, values) of rows of users of different length: the row becomes empty."""

    def without(self, arrays: Mapping[str, NDArray[Any]], row: int) -> dict[str, NDArray[Any]] | None:
        """The arrays without a user; None where the user is not in them."""
        out: dict[str, NDArray[Any]] = {}
        for name in self.rows:
            array = arrays[name]
            empty = -1 if array.dtype.kind == "i" else 0
            if row < len(array) and (array[row] != empty).any():
                out[name] = array.copy()
                out[name][row] = empty
        for name in self.values:
            theirs = arrays[name] == row
            if theirs.any():
                out[name] = np.where(theirs, np.array(-1, arrays[name].dtype), arrays[name])
        for group in self.records:
            theirs = arrays[group[0]] == row
            if theirs.any():
                out |= {name: arrays[name][~theirs] for name in group}
        for indptr, values in self.sparse:
            starts = arrays[indptr]
            if row + 1 < len(starts) and starts[row + 1] > starts[row]:
                low, high = int(starts[row]), int(starts[row + 1])
                out[values] = np.concatenate([arrays[values][:low], arrays[values][high:]])
                out[indptr] = np.where(np.arange(len(starts)) > row, starts - (high - low), starts)
        return {**arrays, **out} if out else None


@dataclass(frozen=True, eq=False)
class Stored:
    """One object, its arrays mapped read-only."""

    key: str
    arrays: dict[str, NDArray[Any]]
    about: dict[str, Any] = field(repr=False)

    @property
    def measured(self) -> dict[str, Any]:
        """What the stage measured."""
        return self.about["measured"]


def key_of(**parts: object) -> str:
    """The key of an object: a hash of plain values, by name."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


class Objects:
    """The objects under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, key: str) -> bool:
        """Whether the object is there, whole."""
        return (self.folder / key / _ABOUT).is_file()

    def put(
        self,
        key: str,
        arrays: Mapping[str, NDArray[Any]],
        *,
        personal: Personal,
        measured: Mapping[str, Any],
        made: Mapping[str, Any],
    ) -> Stored:
        """Write an object; equal arguments give equal bytes.

        Args:
            key: its name.
            arrays: what the stage put out.
            personal: where people stand in it.
            measured: finite numbers, text, lists and tables of them.
            made: what the key was made from.
        """
        about: dict[str, Any] = {
            "made": dict(made),
            "measured": dict(measured),
            "personal": {
                "rows": personal.rows,
                "values": personal.values,
                "records": personal.records,
                "sparse": personal.sparse,
            },
            "amended": 0,
        }
        self._write(key, arrays, about)
        return self.get(key)

    def get(self, key: str, *, full: bool = False) -> Stored:
        """An object.

        Args:
            key: its name.
            full: also hash its bytes.

        Raises:
            DataError: it is not there, or damaged.
        """
        folder = self.folder / key
        try:
            about = json.loads((folder / _ABOUT).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(problem(f"There is no stage output {key}", remedy=f"Restore {_REMEDY}")) from None
        except ValueError:
            damaged = problem(f"The stage output {folder} is damaged", remedy=f"Remove it, or restore {_REMEDY}")
            raise DataError(damaged) from None
        tensors = read(folder / _ARRAYS, size=about["bytes"])
        if full and tensors.sha256() != about["sha256"]:
            what = f"The stage output {folder} does not have its hash"
            raise DataError(problem(what, remedy=f"Remove it, or restore {_REMEDY}"))
        return Stored(key, tensors.arrays(), about)

    def erase(self, key: str, row: int) -> bool:
        """Take a user out of an object; whether the user was in it."""
        stored = self.get(key)
        told = stored.about["personal"]
        personal = Personal(
            tuple(told["rows"]),
            tuple(told["values"]),
            tuple(tuple(group) for group in told["records"]),
            tuple((a, b) for a, b in told["sparse"]),
        )
        arrays = personal.without(stored.arrays, row)
        if arrays is None:
            return False
        self._write(key, arrays, stored.about | {"amended": stored.about["amended"] + 1})
        return True

    def names(self) -> list[str]:
        """All there are, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(
            entry.name for entry in self.folder.iterdir() if len(entry.name) == _DIGITS and self.has(entry.name)
        )

    def size(self, key: str) -> int:
        """Bytes of an object; 0 where it is not there."""
        folder = self.folder / key
        return sum(file.stat().st_size for file in folder.iterdir()) if folder.is_dir() else 0

    def remove(self, key: str) -> int:
        """Remove an object; the bytes that came free."""
        size, folder = self.size(key), self.folder / key
        if folder.is_dir():
            gone = folder.with_name(f".{key}.gone")  # half an object must never stand under its key
            shutil.rmtree(gone, ignore_errors=True)
            folder.rename(gone)
            shutil.rmtree(gone)
        return size

    def tidy(self) -> None:
        """Put back what a killed erasure has set aside, and remove what else killed processes have left."""
        tidy(self.folder)

    def _write(self, key: str, arrays: Mapping[str, NDArray[Any]], about: dict[str, Any]) -> None:
        with replaced(self.folder / key) as folder:
            size, sha256, _ = write(folder / _ARRAYS, arrays)
            text = json.dumps(about | {"bytes": size, "sha256": sha256}, sort_keys=True, indent=1, allow_nan=False)
            write_whole(folder / _ABOUT, text.encode())
