"""Files of a bundle, opened and found to be what the manifest says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recdistill.bundle.manifest import TensorEntry
from recdistill.bundle.tensors import Tensors, read
from recdistill.errors import BundleError, DataError, problem
from recdistill.ids import IdTable

if TYPE_CHECKING:
    from pathlib import Path

    from recdistill.bundle.manifest import FileEntry

__all__ = ["checked_tensors", "id_table"]


def checked_tensors(path: Path, entry: FileEntry) -> Tensors:
    """A safetensors file whose header says what the manifest says: else `BundleError`."""
    tensors = read(path, size=entry.bytes)
    found = {name: TensorEntry.of(tensor) for name, tensor in tensors.header.items()}
    if found != entry.tensors:
        wrong = sorted(n for n in found.keys() | entry.tensors.keys() if found.get(n) != entry.tensors.get(n))[0]
        raise BundleError(
            problem(
                f"The tensor {wrong[:80]!r} of {path} is not what the manifest says: "
                f"{_described(found.get(wrong))}, not {_described(entry.tensors.get(wrong))}",
                remedy="The two belong to different bundles; install the bundle again",
            )
        )
    return tensors


def _described(entry: TensorEntry | None) -> str:
    return f"{entry.dtype} {entry.shape}" if entry else "absent"


def id_table(path: Path, kind: str, tensors: Tensors) -> IdTable:
    """External ids; types, shapes and end points are checked: else `BundleError`."""
    try:
        return IdTable.from_arrays(kind, tensors.arrays())
    except DataError as error:
        raise BundleError(problem(f"The id table {path} is broken: {error}")) from None
