"""Which names a bundle's folder may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recdistill.bundle.folder import find
from recdistill.errors import BundleError, UsageError, problem

if TYPE_CHECKING:
    from pathlib import Path

    from recdistill.bundle.manifest import Manifest

__all__ = ["ENCODER_FILES", "FILES", "INDEX_FILE", "MANIFEST", "left_by_system", "refuse_to_replace", "same", "wanted"]

FILES = (
    "items.safetensors",
    "popular.safetensors",
    "seen.safetensors",
    "tensors.safetensors",
    "users.safetensors",
)
"""What stands in the folder beside `manifest.json`."""

ENCODER_FILES = ("encoder.onnx", "histories.safetensors")
"""What stands there too where new histories can be read: both or none."""

INDEX_FILE = "index.voyager"
"""What stands there too where lists are found by an approximate search."""

MANIFEST = "manifest.json"


def wanted(manifest: Manifest) -> set[str]:
    """What must stand in a folder of this manifest, and nothing else."""
    return {
        *FILES,
        *(() if manifest.encoder is None else ENCODER_FILES),
        *(() if manifest.index is None else (INDEX_FILE,)),
    }


def left_by_system(name: str) -> bool:
    """Whether a desktop put it there: ".DS_Store", "._tensors.safetensors", "Thumbs.db"."""
    return name in (".DS_Store", "Thumbs.db", "desktop.ini", ".directory") or name.startswith("._")


def same(where: str, names: set[str], needed: set[str], verb: str) -> None:
    """Refuse names that are missing or too many: `BundleError`."""
    missing, extra = sorted(needed - names), sorted(names - needed)
    if missing:
        raise BundleError(
            problem(f"{where} {verb} no {', '.join(missing)}", remedy="Part of the bundle is missing; install it again")
        )
    if extra:
        raise BundleError(
            problem(
                f"{where} {verb} what is not a bundle's: {', '.join(name[:80] for name in extra[:3])}",
                allowed=[MANIFEST, *sorted(needed)],
                remedy="Remove it, or install the bundle again",
            )
        )


def refuse_to_replace(path: Path, *, overwrite: bool) -> None:
    """Refuse to write where something stands that is no bundle, or a bundle that may not be replaced: `UsageError`."""
    place = find(path)
    if not place.exists() and not place.is_symlink():
        return
    inside = (
        {entry.name for entry in place.iterdir() if not left_by_system(entry.name)} if place.is_dir() else {place.name}
    )
    if place.is_symlink() or not place.is_dir() or (inside and MANIFEST not in inside):
        raise UsageError(problem(f"{path} is there and is no bundle; it is left alone", remedy="Give another path"))
    if other := sorted(inside - {*FILES, *ENCODER_FILES, INDEX_FILE, MANIFEST}):
        raise UsageError(
            problem(
                f"{path} holds files that are not a bundle's: {', '.join(other[:3])}",
                remedy="Move them away, or give another path",
            )
        )
    if inside and not overwrite:
        raise UsageError(
            problem(f"There is a bundle at {path} already", remedy="Pass overwrite=True to replace it in one step")
        )
