"""Events, blocks, stage outputs and versions of a stream on disk: SQLite, Parquet, safetensors. No torch."""

from __future__ import annotations

from recdistill.ledger.events import Events
from recdistill.ledger.index import Index
from recdistill.ledger.ledger import Block, Ingested, Ledger
from recdistill.ledger.objects import Objects, Stored
from recdistill.ledger.versions import Versions

__all__ = ["Block", "Events", "Index", "Ingested", "Ledger", "Objects", "Stored", "Versions"]
