"""The approximate index of a bundle: a file made from its item vectors, and what was measured of it.

It is opened by a library, so it is read whole, hashed, and looked through (`bundle.hnsw`) before the library gets it;
neither a pickle nor code is in it. Nothing of it is read until a search asks for it.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill.bundle.hnsw import checked
from recdistill.bundle.tensors import open_regular
from recdistill.errors import BundleError, UsageError, problem

if TYPE_CHECKING:
    from types import ModuleType

    from recdistill.bundle.hnsw import Vectors
    from recdistill.bundle.manifest import FileEntry, IndexEntry

__all__ = ["IndexPart", "library"]

_ANEW = "Install the bundle again, or build it again: recdistill export BUNDLE --format ann"


@dataclass(frozen=True, slots=True, eq=False)
class IndexPart:
    """What a bundle holds of an index."""

    source: bytes | Path
    """The file: its bytes, or where it stands."""
    entry: IndexEntry
    """What the manifest says of it."""
    file: FileEntry | None = None
    """Its size and hash, where it stands in a folder."""

    def data(self) -> bytes:
        """The whole file, of the size and the hash that the manifest gives it.

        Raises:
            BundleError: it is another.
        """
        if isinstance(self.source, bytes):
            return self.source
        with open_regular(self.source) as file:
            size = os.fstat(file.fileno()).st_size
            if self.file is None or size != self.file.bytes:
                told = "nothing" if self.file is None else f"{self.file.bytes:,} bytes"
                what = f"{self.source} has the wrong size: the manifest says {told}, the file has {size:,}"
                raise BundleError(problem(what, remedy=_ANEW))
            data = file.read(size)
        if hashlib.sha256(data).hexdigest() != self.file.sha256:
            what = f"{self.source} does not have the hash that the manifest gives it; it was not opened"
            raise BundleError(problem(what, remedy=_ANEW))
        return data

    def load(self, vectors: Vectors, shape: tuple[int, int]) -> Any:  # noqa: ANN401 - of an untyped library
        """The index, ready to be asked.

        Args:
            vectors: rows -> (m, d) float32: what it must hold.
            shape: (I, d).

        Raises:
            UsageError: voyager is not installed.
            BundleError: the file is damaged, or holds anything but an index of these vectors.
        """
        made = library()
        data, where = self.data(), str(self.source) if isinstance(self.source, Path) else "The index"
        checked(where, data, vectors, shape)
        try:
            return made.Index.load(io.BytesIO(data))
        except Exception as error:  # noqa: BLE001 - its errors have no common class
            raise BundleError(problem(f"{where} cannot be loaded: {error}", remedy=_ANEW)) from None


def library() -> ModuleType:
    """What searches approximately, voyager.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("voyager")
    except ImportError:
        what = "Approximate search needs voyager, which is not installed"
        remedy = 'Install it: pip install "recdistill[ann]"; exact search works without it'
        raise UsageError(problem(what, remedy=remedy)) from None
