"""Results that are computed once: one JSON file a cell, named by what it depends on, written by atomic rename.

A run killed at any moment goes on with the cells it lacks; a cell whose settings change is another cell. Two processes
may work in one directory: a cell is claimed by a lock that the operating system releases when its owner dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from recdistill.errors import DataError, UnknownName, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

__all__ = ["Cells", "among", "digest", "finish", "publish", "write_text"]

T = TypeVar("T")
R = TypeVar("R")

_WAIT = 10.0
"""Seconds until what other processes are at is looked for again."""


def digest(content: object) -> str:
    """16 hex digits of anything JSON can hold."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(path)


def among(what: str, wanted: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that are not known.

    Raises:
        UnknownName: one of `wanted` is not among `known`.
    """
    known = list(known)
    for name in wanted:
        if name not in known:
            raise UnknownName(what, name, known)


def finish(todo: Iterable[T], attempt: Callable[[T], R | None], tell: Callable[[T, R], object]) -> None:
    """Attempt everything until it is done; what another process holds is asked for again when the rest is done.

    Args:
        todo: what is to be done, in order.
        attempt: the result, or None while another process is at it.
        tell: told of each result.
    """
    left = list(todo)
    while left:
        before, left = left, []
        for each in before:
            result = attempt(each)
            if result is None:
                left.append(each)
            else:
                tell(each, result)
        if len(left) == len(before):
            time.sleep(_WAIT)


def publish(out: Path, found: dict[str, Any], page: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """Write `<out>.json` and its page `<out>.md` beside the directory `out` of cells; returns what was found."""
    write_text(out.with_name(f"{out.name}.json"), json.dumps(found, indent=1) + "\n")
    write_text(out.with_name(f"{out.name}.md"), page(found))
    return found


class Cells:
    """A directory of results."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, name: str, about: object, suffix: str = ".json") -> Path:
        """Where the cell `name` that depends on `about` lies."""
        return self.root / f"{name}-{digest(about)}{suffix}"

    def get(self, name: str, about: object) -> dict[str, Any] | None:
        """A finished cell, or None."""
        path = self.path(name, about)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def has(self, name: str, about: object) -> bool:
        """Whether a cell is finished."""
        return self.path(name, about).exists()

    def put(self, name: str, about: object, result: dict[str, Any]) -> None:
        """Finish a cell."""
        write_text(self.path(name, about), json.dumps(result, indent=1, sort_keys=True) + "\n")

    @contextmanager
    def claim(self, name: str, about: object, *, wait: bool = False) -> Generator[bool]:
        """Hold a cell while it is worked on; False when another process holds it, or `wait` until it is free.

        Raises:
            DataError: the file system keeps no locks.
        """
        with self.path(name, about, ".lock").open("w") as held:  # it stays: removing it would let two in
            try:
                fcntl.flock(held, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError as error:
                what = f"The folder {str(self.root)!r} cannot be shared: its file system keeps no locks ({error})"
                raise DataError(problem(what, remedy="Work in a folder on a local disk.")) from error
            yield True
