"""The serving format: a folder that numpy alone can read, and that holds nothing that can run."""

from __future__ import annotations

from recdistill.bundle.io import Bundle, open, save, verify
from recdistill.bundle.manifest import Manifest

__all__ = ["Bundle", "Manifest", "open", "save", "verify"]
