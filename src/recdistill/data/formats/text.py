"""Text of a log: bytes of a file, packed or not, its first lines, and errors that name the line."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

from recdistill.errors import DataError, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SUFFIXES", "content", "first_lines", "is_packed", "kind_of", "lines_of"]

SUFFIXES = {
    ".csv": "table",
    ".tsv": "table",
    ".txt": "table",
    ".dat": "table",
    ".data": "table",
    ".inter": "table",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
"""File ending -> how it is read; .gz and .zst may follow the text ones."""

_PACKED = (".gz", ".zst")
_UNKNOWN_PACKERS = (".bz2", ".xz", ".zip", ".7z", ".lz4", ".tar", ".tgz", ".rar")
_HEAD_BYTES = 1 << 18
_HEAD_LINES = 500


def is_packed(path: Path) -> bool:
    """Whether the file is compressed as a whole."""
    return path.suffix.lower() in _PACKED


def kind_of(path: Path) -> str:
    """How a file is read, from its ending: table, jsonl, parquet or arrow.

    Raises:
        DataError: a kind that cannot be read.
    """
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in _UNKNOWN_PACKERS:
        remedy = "Unpack it, or pack it with gzip or zstd"
        raise DataError(problem(f"{path.name} is packed in a way that is not read", suffixes[-1], remedy=remedy))
    bare = Path(path.stem) if suffixes and suffixes[-1] in _PACKED else path
    kind = SUFFIXES.get(bare.suffix.lower(), "table" if not bare.suffix else "")
    if not kind:
        allowed = ", ".join(SUFFIXES) + ", the text ones also with .gz or .zst"
        raise DataError(problem(f"{path.name} is no kind of file that holds a log", bare.suffix, allowed=allowed))
    if kind in ("parquet", "arrow") and is_packed(path):
        remedy = "Unpack it: the format compresses inside"
        raise DataError(problem(f"{path.name} is packed twice", suffixes[-1], remedy=remedy))
    return kind


def first_lines(path: Path) -> list[str]:
    """The first lines that are whole, at most 500, without their ends and without a byte order mark.

    Raises:
        DataError: empty, binary, UTF-16 or otherwise not UTF-8.
    """
    if path.suffix.lower() == ".zst":
        raw = "\n".join(_unpacked_lines(path, _HEAD_LINES)).encode()
        more = False
    else:
        try:
            with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
                raw = file.read(_HEAD_BYTES)
                more = bool(file.read(1))
        except (EOFError, gzip.BadGzipFile) as error:
            raise DataError(
                problem(f"{path.name} is not a whole gzip file ({error})", remedy="Fetch it again")
            ) from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(problem(f"{path.name} is UTF-16, not UTF-8", remedy="Save it as UTF-8"))
    if b"\0" in raw:
        remedy = "Check that it is the right file"
        raise DataError(problem(f"{path.name} holds a zero byte, so it is no text", remedy=remedy))
    if more:
        raw = raw[: raw.rfind(b"\n") + 1] or raw
    lines = decoded(path, raw).removeprefix("\ufeff").splitlines()[:_HEAD_LINES]
    if not any(line.strip() for line in lines):
        raise DataError(problem(f"{path.name} is empty", remedy="Check that it is the right file"))
    return lines


def content(path: Path) -> str:
    """The whole text, for the careful reading of a file that the fast one refused."""
    if path.suffix.lower() == ".zst":
        return "\n".join(_unpacked_lines(path, None))
    raw = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
    return decoded(path, raw).removeprefix("\ufeff")


def lines_of(path: Path, newline: str | None) -> Iterator[str]:
    """The lines with their ends, one at a time; `newline` as `open` takes it."""
    if path.suffix.lower() == ".zst":
        yield from (f"{line}\n" for line in _unpacked_lines(path, None))
        return
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline=newline) as file:
            yield from file
    except UnicodeDecodeError:
        content(path)  # names the line
        raise


def decoded(path: Path, raw: bytes) -> str:
    """Bytes as UTF-8.

    Raises:
        DataError: with the line and the byte that is not.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = f"{path.name}, line {line}: byte {raw[error.start]:#04x} is not UTF-8"
        remedy = "Convert the file to UTF-8, e.g. `iconv -f latin1 -t utf-8`"
        raise DataError(problem(what, remedy=remedy)) from None


def _unpacked_lines(path: Path, n: int | None) -> list[str]:
    """Lines of a zstd file; polars unpacks it, as the standard library does not before Python 3.14."""
    import polars as pl  # noqa: PLC0415 - polars only where a log is read

    with path.open("rb") as file:
        magic = file.read(4)
    if not (magic == b"\x28\xb5\x2f\xfd" or (magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5)):  # or skippable
        raise DataError(problem(f"{path.name} is not a whole zstd file", remedy="Fetch it again, or take off '.zst'"))
    try:
        lines = pl.read_csv(
            path, has_header=False, separator="\x01", quote_char=None, schema={"line": pl.String}, n_rows=n
        )["line"]
    except pl.exceptions.NoDataError:
        return []
    except (pl.exceptions.PolarsError, OSError) as error:
        what = f"{path.name} cannot be unpacked, or is no UTF-8 text ({str(error).splitlines()[0]})"
        raise DataError(problem(what, remedy="Fetch it again, or unpack it and look")) from None
    return lines.fill_null("").to_list()
