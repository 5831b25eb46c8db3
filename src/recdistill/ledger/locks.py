"""One process at a time: a lock that a killed process cannot keep."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["held"]

_PAUSE = 0.05


@contextmanager
def held(path: Path, what: str, *, wait: float = 0.0) -> Generator[None]:
    """Hold the lock file at `path` while the block runs; the system lets go of it when the process ends, however.

    Args:
        path: the lock file; it is made, and never removed.
        what: what the holder does, as others are told: "steps".
        wait: seconds to wait for another holder; 0 refuses at once.

    Raises:
        UsageError: another process holds it; the message says which.
    """
    if sys.platform == "win32":  # no flock: SQLite's own locks are what is left
        yield
        return
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise _busy(path, os.pread(handle, 200, 0).decode(errors="replace")) from None
                time.sleep(_PAUSE)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} {what}".encode(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _busy(path: Path, holder: str) -> UsageError:
    remedy = "Wait until it has finished; a process that was killed holds nothing"
    return UsageError(
        problem(f"The stream {path.parent} is in use: {holder or 'another process works on it'}", remedy=remedy)
    )
