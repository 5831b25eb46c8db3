"""What a forgotten person did before is refused, and nothing that they do later."""

from __future__ import annotations

YEAR_2026, YEAR_2100 = 1_770_000_000, 4_102_444_800


def test_events_without_times_are_refused_by_their_arrival(ledger, batch):
    ledger.ingest(batch(("a", "x"), ("b", "x")), now=10.0)
    with ledger.writing():
        ledger.erase([0], now=20.0)
    assert ledger.ingest(batch(("a", "x")), now=15.0).refused == 1
    done = ledger.ingest(batch(("a", "y")), now=21.0)
    assert (done.new, done.refused) == (1, 0)
    assert ledger.row_of("a") == 2, "a new user, nothing of the old one"


def test_an_event_of_the_year_2100_refuses_nobody_until_then(ledger, batch):
    ledger.ingest(batch(("a", "x", YEAR_2026), ("b", "x", YEAR_2100)), now=YEAR_2026)
    with ledger.writing():
        ledger.erase([0], now=YEAR_2026 + 5.0)
    done = ledger.ingest(batch(("a", "x", YEAR_2026), ("a", "y", YEAR_2026 + 6)), now=YEAR_2026 + 7.0)
    assert (done.new, done.refused) == (1, 1)


def test_of_a_stream_behind_the_clock_nothing_later_than_its_newest_event_is_refused(ledger, batch):
    ledger.ingest(batch(("a", "x", 100), ("b", "x", 200)), now=YEAR_2026)
    with ledger.writing():
        ledger.erase([0], now=YEAR_2026)
    done = ledger.ingest(batch(("a", "x", 100), ("a", "y", 200), ("a", "z", 201)), now=YEAR_2026)
    assert (done.new, done.refused) == (1, 2)
