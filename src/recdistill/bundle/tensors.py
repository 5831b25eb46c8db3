"""Safetensors, read strictly and without a copy.

The format (github.com/huggingface/safetensors, "Format"): 8 bytes of header length, little endian; a JSON header of
`{name: {dtype, shape, data_offsets}}`; the tensors' bytes, one after the other without holes. The library's numpy
loader copies what it reads, so the header is checked here and the bytes are mapped: opening costs the header, whatever
the size of the table. Nothing is allocated before every length, type and offset has been found to fit the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import mmap
import os
import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from recdistill.errors import BundleError, problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["DTYPES", "HEADER_LIMIT", "Tensor", "Tensors", "open_regular", "parse_json", "read", "write"]

DTYPES: dict[str, str] = {
    "BOOL": "|b1",
    "U8": "|u1",
    "I8": "|i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}
"""What a bundle may hold: safetensors' name -> numpy's."""

HEADER_LIMIT = 1 << 20
"""Bytes a header may have. A bundle's largest has a few hundred."""

_NAMES = {np.dtype(numpy): name for name, numpy in DTYPES.items()}
_MAX_DIMS = 8
_MAX_NAME = 200
_FOREIGN = {
    b"PK\x03\x04": "a zip file (perhaps of torch or numpy)",
    b"\x93NUMPY": "an npy file",
    b"PAR1": "a Parquet file",
    **{bytes([0x80, protocol]): "a pickle" for protocol in range(2, 6)},
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a header."""

    dtype: str
    """A key of `DTYPES`."""
    shape: tuple[int, ...]
    begin: int
    """Bytes from the end of the header."""
    end: int


class Tensors:
    """An open safetensors file: its header, and its arrays mapped read-only.

    Arrays stay valid after the file is renamed, replaced or removed; the mapping goes when the last of them goes.
    """

    def __init__(self, header: dict[str, Tensor], mapped: NDArray[np.uint8], start: int) -> None:
        self.header = header
        self._mapped = mapped
        self._start = start

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array of that name, a read-only view of the file."""
        entry = self.header[name]
        data = self._mapped[self._start + entry.begin : self._start + entry.end]
        return data.view(DTYPES[entry.dtype]).reshape(entry.shape)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of them, by name."""
        return {name: self[name] for name in self.header}

    def sha256(self) -> str:
        """The hash of the whole file, header included, as hexadecimal digits. Reads every byte."""
        return hashlib.sha256(self._mapped.data).hexdigest()


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file that is a file: no symlink, folder, pipe or device, and not swapped for one meanwhile.

    Raises:
        BundleError: it is something else, or it is not there.
    """
    try:
        before = path.lstat()
    except OSError as error:
        raise BundleError(problem(f"{path} cannot be read", error.strerror or str(error))) from None
    if stat.S_ISLNK(before.st_mode):
        raise BundleError(
            problem(f"{path} is a symbolic link; a bundle holds plain files", remedy="Copy the file it points to")
        )
    if not stat.S_ISREG(before.st_mode):
        raise BundleError(problem(f"{path} is not a plain file", remedy="Install the bundle again"))
    try:
        file = path.open("rb")
    except OSError as error:
        raise BundleError(problem(f"{path} cannot be read", error.strerror or str(error))) from None
    after = os.fstat(file.fileno())
    if (after.st_dev, after.st_ino) != (before.st_dev, before.st_ino):
        file.close()
        raise BundleError(problem(f"{path} was replaced while it was opened", remedy="Open the bundle again"))
    return file


def read(path: Path, *, size: int | None = None) -> Tensors:
    """Check the header of a safetensors file, then map it.

    Args:
        path: the file.
        size: how many bytes it must have; None takes it as it is.

    Raises:
        BundleError: anything about the length, the header, a dtype, a shape or an offset does not fit.
    """
    with open_regular(path) as file:
        actual = os.fstat(file.fileno()).st_size
        if size is not None and actual != size:
            raise BundleError(
                problem(
                    f"{path} has the wrong size: the manifest says {size:,} bytes, the file has {actual:,}",
                    remedy="It was cut short or changed; install the bundle again",
                )
            )
        length = _header_length(path, file.read(8), actual)
        header = _header(path, file.read(length), actual - 8 - length)
        whole = np.frombuffer(mmap.mmap(file.fileno(), actual, access=mmap.ACCESS_READ), np.uint8)
    return Tensors(header, whole, 8 + length)


def write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> tuple[int, str, dict[str, Tensor]]:
    """Write arrays as safetensors, the same bytes for the same arrays, and fsync.

    Wide types first and then by name, as the format's own writer does, so that every array is aligned.

    Returns:
        The file's size in bytes, its sha256, and the header.

    Raises:
        BundleError: an array's dtype is not one of `DTYPES`.
    """
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Tensor] = {}
    end = 0
    for name in order:
        array = arrays[name]
        dtype = _NAMES.get(array.dtype)
        if dtype is None:
            raise BundleError(
                problem(
                    f"The array {name!r} has a type that a bundle cannot hold", str(array.dtype), allowed=_allowed()
                )
            )
        begin, end = end, end + array.nbytes
        header[name] = Tensor(dtype, array.shape, begin, end)
    text = json.dumps(
        {n: {"dtype": t.dtype, "shape": t.shape, "data_offsets": [t.begin, t.end]} for n, t in header.items()},
        separators=(",", ":"),
    ).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for part in (struct.pack("<Q", len(text)), text):
            digest.update(part)
            file.write(part)
        for name in order:
            data = np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8)
            digest.update(data.data)
            file.write(data.data)
        file.flush()
        os.fsync(file.fileno())
    return 8 + len(text) + end, digest.hexdigest(), header


def parse_json(text: bytes, what: str) -> Any:  # noqa: ANN401 - JSON is anything until it is checked
    """JSON without the traps: no repeated keys, no NaN, no endless nesting, valid utf-8.

    Raises:
        BundleError: the text is not that.
    """

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            msg = "a key is repeated"
            raise ValueError(msg)
        return found

    def finite(constant: str) -> Any:  # noqa: ANN401 - never returns
        msg = f"{constant} is not JSON"
        raise ValueError(msg)

    def number(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else finite(digits)

    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=distinct, parse_constant=finite, parse_float=number)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            problem(f"{what} is not valid JSON", str(error), remedy="The file is damaged; install the bundle again")
        ) from None


def _header_length(path: Path, first: bytes, size: int) -> int:
    if len(first) < 8:
        raise BundleError(problem(f"{path} is too short to be safetensors: {len(first)} bytes"))
    (length,) = struct.unpack("<Q", first)
    if length > HEADER_LIMIT:
        kind = next((kind for magic, kind in _FOREIGN.items() if first.startswith(magic)), None)
        if kind is not None:
            raise BundleError(
                problem(f"{path} is {kind}, not safetensors", remedy="Nothing in it was read; save it as safetensors")
            )
        raise BundleError(
            problem(f"The header of {path} says it has {length:,} bytes", allowed=f"at most {HEADER_LIMIT:,}")
        )
    if 8 + length > size:
        raise BundleError(problem(f"{path} was cut short: its header says {length:,} bytes, the file has {size:,}"))
    return length


def _header(path: Path, text: bytes, size: int) -> dict[str, Tensor]:
    raw = parse_json(text, f"The header of {path}")
    if not isinstance(raw, dict):
        raise BundleError(problem(f"The header of {path} is not a table of tensors"))
    table = cast("dict[str, Any]", raw)
    table.pop("__metadata__", None)
    found = {name: _entry(path, name, entry) for name, entry in table.items()}
    at = 0
    for name, entry in sorted(found.items(), key=lambda pair: (pair[1].begin, pair[1].end)):
        if entry.begin != at:
            raise BundleError(
                problem(f"The tensor {name!r} of {path} begins at byte {entry.begin:,}; the one before ends at {at:,}")
            )
        at = entry.end
    if at != size:
        raise BundleError(problem(f"The tensors of {path} fill {at:,} bytes; the file holds {size:,} for them"))
    return found


def _entry(path: Path, name: str, raw: object) -> Tensor:
    where = f"The tensor {name[:_MAX_NAME]!r} of {path}"
    if len(name) > _MAX_NAME:
        raise BundleError(problem(f"{where} has a name of {len(name):,} characters", allowed=f"at most {_MAX_NAME}"))
    if not isinstance(raw, dict) or set(cast("dict[str, Any]", raw)) != {"dtype", "shape", "data_offsets"}:
        raise BundleError(problem(f"{where} is badly described", allowed="dtype, shape and data_offsets"))
    entry = cast("dict[str, Any]", raw)
    dtype, shape, offsets = entry["dtype"], _naturals(entry["shape"]), _naturals(entry["data_offsets"])
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise BundleError(problem(f"{where} has a type that a bundle cannot hold", dtype, allowed=_allowed()))
    if shape is None or len(shape) > _MAX_DIMS:
        raise BundleError(
            problem(f"{where} has a bad shape", str(entry["shape"])[:100], allowed=f"at most {_MAX_DIMS} numbers >= 0")
        )
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise BundleError(
            problem(f"{where} has bad offsets", str(entry["data_offsets"])[:100], allowed="two numbers >= 0, ascending")
        )
    if math.prod(max(n, 1) for n in shape) >= 2**59:  # numpy counts bytes in 63 bits, also of empty arrays
        raise BundleError(problem(f"{where} has a shape beyond any machine", str(list(shape))))
    needed = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if offsets[1] - offsets[0] != needed:
        raise BundleError(
            problem(
                f"{where} has shape {list(shape)} of {dtype}, which is {needed:,} bytes, "
                f"but its offsets hold {offsets[1] - offsets[0]:,}"
            )
        )
    return Tensor(dtype, shape, offsets[0], offsets[1])


def _naturals(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    numbers = cast("list[object]", value)
    if not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
        return None
    return tuple(cast("list[int]", numbers))


def _allowed() -> str:
    return ", ".join(str(np.dtype(d)) for d in DTYPES.values())
