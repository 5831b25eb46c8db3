"""Cells of a reproduction: names are checked, and what another process holds is waited for."""

from __future__ import annotations

import errno

import pytest

from recdistill.errors import DataError, UnknownName
from recdistill.recipes.cells import Cells, among, finish


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


def test_a_file_system_without_locks_is_named_and_not_taken_for_another_process(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    cells = Cells(tmp_path)
    monkeypatch.setattr("recdistill.recipes.cells.fcntl.flock", refuse)
    for wait in (False, True):
        with (
            pytest.raises(DataError, match=rf"'{tmp_path}' cannot be shared: .*No locks available"),
            cells.claim("a", "what", wait=wait),
        ):
            pytest.fail("nobody holds what cannot be held")


def test_an_error_of_whoever_holds_a_cell_is_its_own(tmp_path):
    with pytest.raises(BlockingIOError), Cells(tmp_path).claim("a", "what"):
        raise BlockingIOError
