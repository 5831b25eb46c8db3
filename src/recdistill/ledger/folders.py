"""What a kill, or a loss of power, leaves of folders that are replaced: put right by whoever comes next."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from recdistill.bundle.folder import find

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["sync", "tidy"]

_ASIDE = ".replaced"


def tidy(folder: Path) -> None:
    """Put back what was set aside where nothing took its place, and remove whatever else killed processes have left."""
    for left in list(folder.glob(".*")):
        place = folder / left.name[1:].removesuffix(_ASIDE)
        if left.name.endswith(_ASIDE) and find(place) != place:
            left.rename(place)
        else:
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
