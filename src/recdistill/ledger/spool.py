"""Lines of a pipe until they are read: a folder for each pipe, locked for as long as its process lives.

A process number would not do for a name: in a container every process has the same one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["spooled", "sweep"]


@contextmanager
def spooled(spool: Path) -> Generator[Path]:
    """A new folder in `spool`, gone when the block ends; what a killed process leaves is for `sweep`."""
    spool.mkdir(parents=True, exist_ok=True)
    place = spool / secrets.token_hex(8)
    with ExitStack() as own:
        with _locked(spool):  # nobody sweeps between the folder and its lock
            place.mkdir()
            own.enter_context(_locked(place))
        own.callback(shutil.rmtree, place, ignore_errors=True)
        yield place


def sweep(spool: Path) -> None:
    """Remove the folders that no living process holds."""
    if not spool.is_dir() or sys.platform == "win32":
        return
    with _locked(spool):
        for place in spool.iterdir():
            with suppress(BlockingIOError, FileNotFoundError), _locked(place, wait=False):
                shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Generator[None]:
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)
