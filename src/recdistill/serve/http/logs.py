"""Logs: one JSON object a line on standard error. No ids of users or items, no addresses, no queries, no bodies."""

from __future__ import annotations

import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

import msgspec

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Log"]

_ENCODER = msgspec.json.Encoder()
Value = str | int | float | bool | None


class Log:
    """Writes lines.

    Args:
        out: where to; None takes standard error.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = sys.stderr if out is None else out

    def info(self, event: str, **about: Value) -> None:
        """Something that is meant to happen."""
        self._write("info", event, about)

    def warning(self, event: str, **about: Value) -> None:
        """Something that somebody should look at."""
        self._write("warning", event, about)

    def failed(self, event: str, error: BaseException, **about: Value) -> None:
        """A fault of ours: its type and place. Its message is left out, for it may hold what a person asked."""
        where = _where(error.__traceback__)
        self._write("error", event, {**about, "error": type(error).__name__, "where": where})

    def _write(self, level: str, event: str, about: dict[str, Value]) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = _ENCODER.encode({"at": at, "level": level, "event": event, **about}).decode()
        try:
            self._out.write(line + "\n")
            self._out.flush()
        except (OSError, ValueError):  # whoever read the log has gone
            return


def _where(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)[-6:]
    return " < ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in reversed(frames))
