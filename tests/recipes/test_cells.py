"""Cells of a reproduction: names are checked, and what another process holds is waited for."""

from __future__ import annotations

import pytest

from recdistill.errors import UnknownName
from recdistill.recipes.cells import among, finish


def test_what_another_process_holds_is_asked_for_again_when_the_rest_is_done(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("recdistill.recipes.cells.time.sleep", waits.append)
    asked: list[str] = []

    def attempt(name: str) -> dict[str, int] | None:
        asked.append(name)
        return None if name == "held" and asked.count("held") < 3 else {"n": len(asked)}

    told: list[str] = []
    finish(["held", "free"], attempt, lambda name, result: told.append(f"{name} {result['n']}"))
    assert asked == ["held", "free", "held", "held"]
    assert told == ["free 2", "held 4"]
    assert len(waits) == 1, "it waits only when nothing went on"


def test_names_that_are_not_known_are_refused():
    among("row", ["a"], ["a", "b"])
    with pytest.raises(UnknownName, match="Unknown row 'c'"):
        among("row", ["a", "c"], ["a", "b"])
