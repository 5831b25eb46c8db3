"""What is kept on disk: the outputs that the next cycle needs, every holdout, some versions, and a budget."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from recdistill.stream.chain import distilled, start

if TYPE_CHECKING:
    from pathlib import Path

    from recdistill.stream.stream import Stream

__all__ = ["size_of", "sizes", "upkeep"]


def sizes(stream: Stream) -> dict[str, int]:
    """Bytes by part of the folder."""
    parts = {"segments": "ledger/segments", "objects": "objects", "versions": "versions", "work": "work"}
    found = {name: size_of(stream.folder / place) for name, place in parts.items()}
    index = sum(map(_bytes, (stream.folder / "ledger").glob("index.sqlite*")))
    return {"index": index, **found}


def size_of(folder: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(map(_bytes, folder.rglob("*")))


def upkeep(stream: Stream) -> None:
    """Merge small segments, let go of what no cycle needs, stay within the budget; with the lock of `step` held."""
    disk = stream.settings.disk
    stream.ledger.compact()
    _objects(stream, disk.cycles)
    _versions(stream, disk.versions)
    if disk.budget is None or sum(sizes(stream).values()) <= disk.budget:
        return
    _objects(stream, 1)
    _versions(stream, 2)
    if disk.drop_events:
        _events(stream, disk.budget)


def _bytes(path: Path) -> int:
    try:
        found = path.lstat()
    except FileNotFoundError:  # another process has just removed it
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _objects(stream: Stream, cycles: int) -> None:
    """Keep the outputs of the last `cycles` teacher cycles and since, every holdout, every gate's verdict.

    And what the next cycle goes on from, however long ago it passed.
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
    for key in stream.objects.names():
        if key not in keep:
            stream.objects.remove(key)


def _versions(stream: Stream, count: int) -> None:
    names, serving = stream.versions.names(), stream.versions.serving()
    older = [name for name in names if serving is not None and name < serving]
    keep = {*names[-count:], *([serving] if serving else []), *older[-1:]}
    for name in names:
        if name not in keep:
            stream.versions.remove(name)


def _events(stream: Stream, budget: int) -> None:
    """Drop the oldest events that have been learned from, block by block, until the budget holds."""
    done = {line.cycle for line in stream.journal().lines() if line.stage == "publish"}
    teachers = [line.cycle for line in stream.journal().lines() if line.stage == "proxies" and line.object]
    for block in stream.ledger.blocks():
        learned = block.number in done and block.number <= max(teachers, default=-1)
        if not learned or sum(sizes(stream).values()) <= budget:
            return
        stream.ledger.drop(block.last)
