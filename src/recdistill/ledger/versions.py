"""Published versions: bundles beside each other, and a link that says which one is served.

    versions/000004-3f9a01c2/    a bundle: the student of cycle 4
    versions/000004d-77b0e9a4/   the one distilled at the end of that cycle
    serving                      a symbolic link to one of them, replaced in one step

`serving` is a bundle to everyone who opens it; a request that has opened one version keeps it.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import numpy as np

from recdistill import bundle
from recdistill.bundle.folder import find, sync
from recdistill.data.csr import Csr
from recdistill.errors import UsageError, problem
from recdistill.ids import IdTable
from recdistill.ledger.folders import tidy

if TYPE_CHECKING:
    from pathlib import Path

    from recdistill.bundle.io import Bundle

__all__ = ["Versions", "learned"]


def learned(version: Bundle) -> int:
    """The number of the first event after those that a version was made of; 0 of a bundle that no stream made."""
    events = version.manifest.lineage.get("events")
    return events if isinstance(events, int) else 0


class Versions:
    """The versions of one stream.

    Args:
        folder: the stream's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.link = folder / "versions", folder / "serving"

    @staticmethod
    def name(cycle: int, key: str, *, distilled: bool = False) -> str:
        """What a version of a cycle is called; names ascend as versions are made."""
        return f"{cycle:06d}{'d' if distilled else ''}-{key[:8]}"

    def names(self) -> list[str]:
        """All that are kept, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(entry.name for entry in self.folder.iterdir() if not entry.name.startswith("."))

    def path(self, name: str) -> Path:
        """The folder of a version."""
        return self.folder / name

    def serving(self) -> str | None:
        """The version that is served; None before the first."""
        return self.link.readlink().name if self.link.is_symlink() else None

    def open(self, name: str) -> Bundle:
        """A version."""
        return bundle.open(self.folder / name)

    def serve(self, name: str) -> None:
        """Point `serving` at a version.

        Raises:
            UsageError: there is no such version.
        """
        if not find(self.folder / name).is_dir():
            raise UsageError(problem("There is no such version", name, allowed=self.names() or "none yet"))
        beside = self.link.with_name(f".serving.{os.getpid()}")
        beside.unlink(missing_ok=True)
        beside.symlink_to(f"{self.folder.name}/{name}", target_is_directory=True)
        beside.replace(self.link)
        sync(self.link.parent)

    def erase(self, name: str, user: str) -> bool:
        """Take a user out of a version; whether the user was in it. The link and the name stay."""
        old = self.open(name)
        (row,) = old.users.rows([user]).tolist()
        if row < 0:
            return False
        keep = np.delete(np.arange(len(old.users)), row)
        arrays = {key: array[keep] if key.startswith("user") else array for key, array in old.arrays.items()}
        manifest = old.manifest
        bundle.save(
            self.folder / name,
            kind=manifest.kind,
            arrays=arrays,
            users=IdTable.from_ids(old.users.external(keep)) if len(keep) else IdTable.from_ids(keep),
            items=old.items,
            seen=old.seen.select(keep) if len(keep) else Csr.empty(0, len(old.items)),
            popular=np.array(old.popular),
            model=manifest.model,
            settings=manifest.settings,
            lineage=manifest.lineage,
            metrics=manifest.metrics,
            citations=manifest.citations,
            created=manifest.created,
            overwrite=True,
        )
        return True

    def size(self, name: str) -> int:
        """Bytes of a version."""
        return sum(file.stat().st_size for file in (self.folder / name).iterdir())

    def remove(self, name: str) -> int:
        """Remove a version that is not served; the bytes that came free."""
        if name == self.serving():
            raise UsageError(problem(f"The version {name!r} is being served", remedy="Serve another one first"))
        size = self.size(name)
        gone = self.folder / f".{name}.gone"
        shutil.rmtree(gone, ignore_errors=True)
        (self.folder / name).rename(gone)
        shutil.rmtree(gone)
        return size

    def tidy(self) -> None:
        """Put back what a killed erasure has set aside, and remove what else killed processes have left."""
        tidy(self.folder)
        for beside in self.link.parent.glob(".serving.*"):
            beside.unlink(missing_ok=True)
