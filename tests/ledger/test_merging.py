"""Small segments become larger ones as they come."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recdistill.ledger import Ledger, merging
from recdistill.ledger.blocks import Rule
from recdistill.ledger.events import gathered
from recdistill.ledger.merging import FEW


def test_many_small_batches_become_few_segments_and_no_event_changes(tmp_path, batch):
    Ledger.create(tmp_path / "s", Rule(base=10_000, events=10_000)).close()
    ledger = Ledger(tmp_path / "s", Rule(base=10_000, events=10_000))
    most = 0
    for n in range(150):
        size = (1, 30, 3)[n % 3]  # of several classes, in turn
        done = ledger.ingest(batch(*[("a", f"x{n}-{one}", n) for one in range(size)]), now=0.0)
        assert done.new == size
        most = max(most, ledger.counts()["segments"])
    assert most <= 3 * FEW
    assert ledger.counts()["segments"] == len(list((ledger.folder / "segments").iterdir()))
    rows = ledger.rows()
    assert rows.number.tolist() == list(range(1700))
    assert rows.timestamp.tolist() == [n for n in range(150) for _ in range((1, 30, 3)[n % 3])]
    assert len(ledger.rows(40, 100)) == 60
    assert ledger.ingest(batch(("a", "x7-0", 7)), now=0.0).new == 0, "and what was merged still counts once"
    ledger.close()


def test_a_merge_that_was_killed_leaves_nothing_behind(ledger, monkeypatch, batch):
    class Cut(BaseException):
        pass

    def cut_off(*_):
        raise Cut

    ledger.close()
    big = Ledger(ledger.folder.parent, Rule(base=1000, events=1000))
    for n in range(FEW - 1):
        big.ingest(batch(("a", f"x{n}", n)), now=0.0)

    def fill(name):
        for n in range(FEW + 1):
            big.ingest(batch(("b", f"{name}{n}", n)), now=0.0)

    for where in ("unlink", "rename"):
        with monkeypatch.context() as patch:
            if where == "unlink":  # the merge is through, the old files are there
                patch.setattr(Path, "unlink", cut_off)
            else:
                patch.setattr(merging, "merged", cut_off)
            with pytest.raises(Cut):
                fill(where)
        before = len(big.rows())
        assert big.ingest(batch(("c", where, 1)), now=0.0).new == 1
        assert len(big.rows()) == before + 1
        assert big.counts()["segments"] == len(list((big.folder / "segments").iterdir()))
    big.close()


def test_a_reader_whose_segment_is_merged_away_reads_again(ledger, monkeypatch, batch):
    ledger.ingest(batch(("a", "x", 1)), now=0.0)
    real, failed = pl.read_parquet, []

    def read(path, **how):
        if not failed:
            failed.append(path)
            raise FileNotFoundError(path)
        return real(path, **how)

    monkeypatch.setattr(pl, "read_parquet", read)
    assert len(ledger.rows()) == 1
    assert failed


def test_segments_with_and_without_times_stay_apart(tmp_path):
    Ledger.create(tmp_path / "s", Rule(base=10_000, events=10_000)).close()
    ledger = Ledger(tmp_path / "s", Rule(base=10_000, events=10_000))
    for n in range(FEW):
        table = {"user": ["a"], "item": [f"x{n}"]}
        ledger.ingest(gathered(pl.DataFrame(table if n < 4 else {**table, "timestamp": [n]})), now=0.0)
    assert ledger.counts()["segments"] == 2
    assert ledger.rows(4, FEW).timestamp.tolist() == list(range(4, FEW))
    assert ledger.rows(0, 4).timestamp is None
    ledger.close()


def test_segments_that_a_forgetting_has_emptied_are_merged_too(tmp_path, batch):
    """They are equal bytes under one name, and so is what they become."""
    Ledger.create(tmp_path / "s", Rule(base=10_000, events=10_000)).close()
    ledger = Ledger(tmp_path / "s", Rule(base=10_000, events=10_000))
    for n in range(FEW - 1):
        ledger.ingest(batch(("a", f"x{n}", n)), now=0.0)
    with ledger.writing():
        ledger.erase([0], now=1.0)
    assert len(list((ledger.folder / "segments").iterdir())) == 1
    ledger.ingest(batch(("b", "y", 99)), now=2.0)
    assert ledger.counts()["segments"] == 1
    assert ledger.rows().number.tolist() == [FEW - 1]
    with ledger.writing():
        ledger.erase([1], now=3.0)
    ledger.close_open(now=4.0, asked=True)
    ledger.compact()
    assert len(ledger.rows()) == 0
    ledger.close()
