"""A run's folder belongs to one set of settings: another run is told so before it replaces anything.

The settings lie in `work/settings.json`. A process at work holds a shared lock, which the operating system releases
when it ends; taking over a folder asks for the lock alone, so that nobody's results are replaced under his hands.
"""

from __future__ import annotations

import fcntl
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from recdistill.errors import SettingsError, UsageError, problem
from recdistill.recipes.cells import write_text
from recdistill.settings import parse

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from pathlib import Path

    from recdistill.recipes.runfile import RunSettings
    from recdistill.recipes.searchfile import SearchRun

__all__ = ["held"]

_SHOWN = 5
_ADDED: dict[str, Any] = {
    "output": True,
    "student": {"name"},
    "students": True,
    "search": {"pareto", "random", "controls"},
}
"""What only adds rows to what is there, or names them."""


@contextmanager
def held(run: RunSettings | SearchRun, *, overwrite: bool = False) -> Generator[None]:
    """Work in the folder of a run; processes with the same settings share it.

    Args:
        run: whose folder and settings.
        overwrite: take the folder over from a run with other settings; finished work of both stays.

    Raises:
        UsageError: the folder holds a run with other settings, or such a run is at work there.
    """
    work, settings = run.output.dir / "work", run.model_dump(mode="json", exclude=_ADDED)
    work.mkdir(parents=True, exist_ok=True)
    path = work / "settings.json"
    with (work / "folder.lock").open("w") as busy, (work / "settings.lock").open("w") as claiming:
        fcntl.flock(claiming, fcntl.LOCK_EX)  # one process at a time reads and writes the settings
        before = _read(path, run)
        different = [] if before is None else list(_differences(before, settings))
        if different:
            _take_over(run, different, busy.fileno(), overwrite=overwrite)
        fcntl.flock(busy, fcntl.LOCK_SH)
        if before is None or different:
            write_text(path, json.dumps(settings, indent=1) + "\n")
        fcntl.flock(claiming, fcntl.LOCK_UN)
        yield


def _take_over(run: RunSettings | SearchRun, different: list[str], busy: int, *, overwrite: bool) -> None:
    more = f" and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
    what = f"{run.output.dir} holds a run with other settings ({'; '.join(different[:_SHOWN])}{more})"
    if not overwrite:
        remedy = (
            "Give another output.dir, or replace its results with --overwrite (overwrite=True), which uses what is "
            "finished and fits again"
        )
        raise UsageError(problem(what, remedy=remedy))
    try:
        fcntl.flock(busy, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        remedy = "Wait until it ends, or give another output.dir"
        raise UsageError(problem(f"{what}, and another process is at work on it", remedy=remedy)) from None


def _read(path: Path, run: RunSettings | SearchRun) -> dict[str, Any] | None:
    try:
        before = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):  # a folder of an earlier release has none
        return None
    try:  # what an earlier release did not know was as by default
        there = parse(type(run), before | {"output": run.output.model_dump(mode="json")})
    except SettingsError:
        return before
    return there.model_dump(mode="json", exclude=_ADDED)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """What differs, as "train.epochs: 50 there, 60 now"."""
    for key in dict.fromkeys([*before, *now]):
        a, b, name = before.get(key), now.get(key), at + key
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(cast("dict[str, Any]", a), cast("dict[str, Any]", b), f"{name}.")
        elif a != b:
            yield f"{name}: {json.dumps(a)} there, {json.dumps(b)} now"
