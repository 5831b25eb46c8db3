"""What a kill, or a loss of power, leaves of folders that are replaced: put right by whoever comes next."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from recdistill.bundle.folder import find

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["tidy"]

_ASIDE = ".replaced"


def tidy(folder: Path) -> None:
    """Put back what was set aside where nothing took its place, and remove whatever else killed processes have left."""
    for left in list(folder.glob(".*")):
        place = folder / left.name[1:].removesuffix(_ASIDE)
        if left.name.endswith(_ASIDE) and find(place) != place:
            left.rename(place)
        else:
            shutil.rmtree(left, ignore_errors=True)
