"""A folder that appears, or is replaced, at one moment.

A folder is built beside its place and renamed into it. Replacing exchanges the two folders in one system call where
the system has one (Linux `renameat2`, macOS `renamex_np`); elsewhere the old folder is set aside under a name that
`find` also knows, so that a process killed between the two renames loses nothing.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Generator

if sys.platform != "win32":
    import fcntl

__all__ = ["beside", "find", "held_open", "identity", "locked", "replaced", "sync", "write_whole"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h
_RENAME_SWAP = 2  # macOS sys/stdio.h


def find(path: Path) -> Path:
    """`path`, or where a save that was killed has set it aside."""
    aside = _aside(path)
    return aside if not path.exists() and aside.is_dir() else path


@contextmanager
def replaced(path: Path) -> Generator[Path]:
    """An empty folder beside `path` to build in; it takes the place of `path` when the block ends well.

    Until then whatever is at `path` stays whole; after a failure the new folder is removed, after a kill the next
    save removes it.
    """
    path = path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        above = next(each for each in path.parents if each.exists())
        remedy = "Give a place in a folder"
        raise UsageError(problem(f"{path} cannot be made: {above} is a file", remedy=remedy)) from None
    if find(path) != path:
        _aside(path).rename(path)
    shutil.rmtree(_aside(path), ignore_errors=True)
    with beside(path) as new:
        yield new
        sync(new)
        _take_place(new, path)
        sync(path.parent)


@contextmanager
def beside(path: Path) -> Generator[Path]:
    """An empty folder beside `path`, gone when the block ends; what killed ones have left goes first."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    new = path.parent / f".{path.name}.{secrets.token_hex(8)}.partial"
    new.mkdir()
    try:
        with locked(new):  # marks it as being built, for as long as this process lives
            yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _take_place(new: Path, path: Path) -> None:
    if not path.exists():
        new.rename(path)
    elif not _exchange(new, path):
        aside = _aside(path)
        path.rename(aside)
        new.rename(path)
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two folders in one step; False where the system or the file system cannot."""
    libc: Any = ctypes.CDLL(None) if sys.platform != "win32" else None
    try:
        if sys.platform == "linux":
            return libc.renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0
        if sys.platform == "darwin":
            return libc.renamex_np(os.fsencode(a), os.fsencode(b), _RENAME_SWAP) == 0
    except AttributeError:  # a C library older than the call
        return False
    return False


def _aside(path: Path) -> Path:
    return path.absolute().parent / f".{path.name}.replaced"


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Generator[None]:
    """A folder that no other process holds, until the block or this process ends; without effect on Windows.

    Raises:
        BlockingIOError: another holds it, and `wait` is False.
        OSError: it is not there, or no folder of its own but a link.
    """
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


def _sweep(path: Path) -> None:
    """Remove what killed saves of `path` have left, and only that: a folder a living save holds is locked."""
    if sys.platform == "win32":
        return
    prefix = f".{path.name}."
    for left in path.parent.iterdir():
        if not (left.name.startswith(prefix) and left.name.endswith(".partial")):
            continue
        with suppress(OSError), locked(left, wait=False):
            shutil.rmtree(left, ignore_errors=True)


def sync(folder: Path) -> None:
    """Wait until the names in a folder are on disk, so that a loss of power takes none of them back."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def held_open(folder: Path) -> Generator[tuple[int, int] | None]:
    """The identity of a folder that stays its own as long as it is held: no other can get its number meanwhile."""
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError:  # it went, or the system opens no folders
        yield identity(folder)
        return
    try:
        found = os.fstat(fd)
        yield found.st_dev, found.st_ino
    finally:
        os.close(fd)


def identity(folder: Path) -> tuple[int, int] | None:
    """The device and number of a folder; None where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
