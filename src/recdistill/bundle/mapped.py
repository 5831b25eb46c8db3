"""Memory-mapped arrays: what has been read and is not needed soon can leave the process.

Pages of a mapped file count as memory of the process once they are touched. A table that is copied into another order,
or looked through once, would count twice; letting its pages go costs nothing, for the system still has them.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["release"]

_ADVICE: int | None = getattr(mmap, "MADV_DONTNEED", None)  # Windows has none


def release(array: NDArray[Any]) -> None:
    """Let the pages of an array go, if it is a read-only view of a mapped file; they come back when they are read.

    Args:
        array: contiguous; anything that is not mapped is left alone.
    """
    if _ADVICE is None or array.flags.writeable or not array.flags.c_contiguous or array.nbytes == 0:
        return
    base: Any = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if not isinstance(base, mmap.mmap):
        return
    offset = array.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
    begin = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (offset + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > begin:
        base.madvise(_ADVICE, begin, end - begin)
