"""A ledger of small blocks."""

from __future__ import annotations

import polars as pl
import pytest

from recdistill.ledger import Ledger
from recdistill.ledger.blocks import Rule
from recdistill.ledger.events import gathered


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger.create(tmp_path / "s", Rule(base=4, events=3))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def batch():
    """`batch(("a", "x", 7), ("b", "x", 8))`: events; the times may be left out."""

    def of(*rows):
        return gathered(pl.DataFrame(list(rows), schema=["user", "item", "timestamp"][: len(rows[0])], orient="row"))

    return of
