"""What is kept on disk: the outputs that the next cycle needs, every holdout, some versions, and a budget."""

from __future__ import annotations

import stat
from itertools import takewhile
from typing import TYPE_CHECKING

from recdistill.stream.chain import distilled, start

if TYPE_CHECKING:
    from pathlib import Path

    from recdistill.stream.stream import Stream

__all__ = ["least", "sizes", "upkeep"]


def sizes(stream: Stream) -> dict[str, int]:
    """Bytes by part of the folder; "other" is what is beside them: settings, the report, manifests, lines of a pipe."""
    found: dict[str, int] = dict.fromkeys(("index", "segments", "objects", "versions", "work", "other"), 0)
    for path in stream.folder.rglob("*"):
        found[_part(path.relative_to(stream.folder).parts)] += _bytes(path)
    return found


def least(stream: Stream) -> int:
    """Bytes that the folder cannot go below as it stands: event keys, versions, holdouts and what is gone on from stay.

    Of a segment that ends in a later block, the share of its events that may go is taken for the share of its bytes.
    """
    index, last = stream.ledger.index, _learned(stream) if stream.settings.disk.drop_events else 0
    segments = index.rows("SELECT first, last, bytes FROM segment WHERE first < ?", last)
    free = sum(int(size * (min(last, end) - first) / (end - first)) for first, end, size in segments)
    spare = [stream.objects.folder / key for key in _spare_objects(stream, 1)]
    spare += map(stream.versions.path, _spare_versions(stream, 2))
    free += sum(_bytes(file) for folder in spare for file in folder.rglob("*"))
    return sum(sizes(stream).values()) - free


def upkeep(stream: Stream) -> None:
    """Merge small segments, let go of what no cycle needs, stay within the budget; with the lock of `step` held."""
    disk = stream.settings.disk
    stream.ledger.compact()
    _shed(stream, cycles=disk.cycles, versions=disk.versions)
    if disk.budget is None or sum(sizes(stream).values()) <= disk.budget:
        return
    _shed(stream, cycles=1, versions=2)
    stream.ledger.index.settle()  # its log would count as what has to stay
    if disk.drop_events and least(stream) <= disk.budget:  # else they would go for nothing
        _events(stream, disk.budget)


def _part(place: tuple[str, ...]) -> str:
    match place:
        case ("objects" | "versions" | "work" as part, *_):
            return part
        case ("ledger", "segments", *_):
            return "segments"
        case ("ledger", name) if name.startswith("index.sqlite"):
            return "index"
        case _:
            return "other"


def _bytes(path: Path) -> int:
    try:
        found = path.lstat()
    except FileNotFoundError:  # another process has just removed it
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _shed(stream: Stream, *, cycles: int, versions: int) -> None:
    for key in _spare_objects(stream, cycles):
        stream.objects.remove(key)
    for name in _spare_versions(stream, versions):
        stream.versions.remove(name)


def _spare_objects(stream: Stream, cycles: int) -> list[str]:
    """All but the outputs of the last `cycles` teacher cycles and since, every holdout, every gate's verdict.

    And but what the next cycle goes on from, however long ago it passed.
    """
    journal = stream.journal()
    lines = journal.lines()
    newest = max((line.cycle for line in lines), default=0)
    going = [one(journal, n) for one in (start, distilled) for n in (newest, newest + 1)]
    teachers = sorted({line.cycle for line in lines if line.stage == "proxies" and line.object})
    students = sorted({line.cycle for line in lines if line.stage == "student"})
    oldest = min([*teachers[-cycles:], *students[-cycles:]], default=0)
    since = min(teachers[-2:], default=0) if cycles == 1 else oldest  # blocks for the next teacher update
    keep = {
        line.object
        for line in lines
        if line.cycle >= oldest
        or line.stage in ("holdout", "gate", "gate[distil]")
        or (line.stage == "collect" and line.cycle >= since)
    } | {told.object for told in going if told is not None}
    return [key for key in stream.objects.names() if key not in keep]


def _spare_versions(stream: Stream, count: int) -> list[str]:
    names, serving = stream.versions.names(), stream.versions.serving()
    older = [name for name in names if serving is not None and name < serving]
    keep = {*names[-count:], *([serving] if serving else []), *older[-1:]}
    return [name for name in names if name not in keep]


def _events(stream: Stream, budget: int) -> None:
    """Drop the oldest events that have been learned from, block by block, until the budget holds."""
    last = _learned(stream)
    for block in stream.ledger.blocks():
        if block.last > last or sum(sizes(stream).values()) <= budget:
            return
        stream.ledger.drop(block.last)
        stream.ledger.index.settle()


def _learned(stream: Stream) -> int:
    """One past the number of the last event that students and teachers have learned from."""
    lines = stream.journal().lines()
    done = {line.cycle for line in lines if line.stage == "publish"}
    taught = max((line.cycle for line in lines if line.stage == "proxies" and line.object), default=-1)
    learned = takewhile(lambda block: block.number in done and block.number <= taught, stream.ledger.blocks())
    return max((block.last for block in learned), default=0)
