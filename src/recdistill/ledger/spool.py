"""Lines of a pipe until they are read: a folder for each pipe, locked for as long as its process lives.

A process number would not do for a name: in a container every process has the same one.
"""

from __future__ import annotations

import secrets
import shutil
import sys
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from recdistill.bundle.folder import locked

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["spooled", "sweep"]


@contextmanager
def spooled(spool: Path) -> Generator[Path]:
    """A new folder in `spool`, gone when the block ends; what a killed process leaves is for `sweep`."""
    spool.mkdir(parents=True, exist_ok=True)
    place = spool / secrets.token_hex(8)
    with ExitStack() as own:
        with locked(spool):  # nobody sweeps between the folder and its lock
            place.mkdir()
            own.enter_context(locked(place))
        own.callback(shutil.rmtree, place, ignore_errors=True)
        yield place


def sweep(spool: Path) -> None:
    """Remove the folders that no living process holds."""
    if not spool.is_dir() or sys.platform == "win32":
        return
    with locked(spool):
        for place in spool.iterdir():
            with suppress(BlockingIOError, FileNotFoundError), locked(place, wait=False):
                shutil.rmtree(place, ignore_errors=True)
