"""Where versions come from: one bundle that may be replaced, or a stream whose `serving` link may be moved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from recdistill.bundle.folder import find
from recdistill.errors import UsageError, problem

__all__ = ["BundleSource", "Seen", "Source", "StreamSource"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands at a source at one moment; two that are equal are one version."""

    path: Path
    """The bundle's folder, links followed."""
    name: str | None
    """The version's name; None: its bundle names it."""
    identity: tuple[int, ...]
    """Device and number of the folder, and number, time and size of its manifest."""


class Source(Protocol):
    """Where versions appear."""

    def look(self) -> Seen | None:
        """What is there now; None: nothing. Cheap: a few system calls."""
        ...


class BundleSource:
    """A bundle's folder, or a link to one; a new version takes its place by rename.

    Args:
        path: the folder or the link.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def look(self) -> Seen | None:
        """The folder as it is now."""
        return _seen(find(self.path), None)


class StreamSource:
    """A stream: `serving` links to one of `versions/`.

    Args:
        folder: the stream's folder.

    Raises:
        UsageError: it is no stream.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "stream.toml").is_file():
            remedy = f"Begin one with `recdistill stream init {folder}`"
            raise UsageError(problem(f"There is no stream at {folder}", remedy=remedy))
        self.folder = folder.absolute()

    def look(self) -> Seen | None:
        """The version that the link names now."""
        link = self.folder / "serving"
        try:
            name = link.readlink().name
        except OSError:  # none has been published
            return None
        return _seen(find(self.folder / "versions" / name), name)


def _seen(path: Path, name: str | None) -> Seen | None:
    try:
        folder = path.resolve(strict=True)
        place = folder.stat()
        manifest = (folder / "manifest.json").lstat()
    except (OSError, RuntimeError):  # not there, or a link to itself
        return None
    identity = place.st_dev, place.st_ino, manifest.st_ino, manifest.st_mtime_ns, manifest.st_size
    return Seen(folder, name, identity)
