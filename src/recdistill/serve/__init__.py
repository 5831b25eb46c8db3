"""Serving a bundle: external ids in, recommendations out; no torch."""

from __future__ import annotations

from recdistill.serve.recommendations import Item, Recommendations
from recdistill.serve.service import Service

__all__ = ["Item", "Recommendations", "Service"]
