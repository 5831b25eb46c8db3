"""The append-only ledger of a stream: events in, numbered once each; blocks of them out.

    <stream>/ledger/index.sqlite    ids, event keys, segments, blocks, finished stages
    <stream>/ledger/segments/       Parquet files of events: rows of users and items, no ids
    <stream>/ledger/blocks/         a manifest for each closed block
    <stream>/ledger/spool/          what arrives by a pipe, until it is read
    <stream>/ledger/unfinished      while segments or blocks change; left by a process that was killed

Events of a batch are appended by time, ties in the order of the source; an event that comes later than the end of its
block stands in the block that is open when it arrives. External ids are text: 12 and "12" are one id, "007" another.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from recdistill.errors import DataError, UsageError, problem
from recdistill.ledger import forgotten, manifests, merging, segments
from recdistill.ledger.blocks import Block, Rule, cut
from recdistill.ledger.index import Index
from recdistill.ledger.locks import held
from recdistill.ledger.segments import Rows
from recdistill.ledger.spool import sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.ledger.events import Events

__all__ = ["Block", "Ingested", "Ledger"]

_WAIT = 600.0  # seconds for another ingest to finish
_AGAIN = 10  # times that events are looked for whose files are merged meanwhile
_T = TypeVar("_T")
_BLOCK = "number, first, last, users, items, low, high, late, opened, closed, why"


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a batch."""

    read: int
    new: int
    repeated: int
    """Events that were in the ledger already, or twice in the batch under one id."""
    late: int
    """New events older than the end of the last closed block; they stand in the open one."""
    refused: int
    """Events of people who were forgotten, from before that."""
    closed: tuple[int, ...]
    """The blocks that the batch filled."""

    def __add__(self, other: Ingested) -> Ingested:
        """Of two batches."""
        counts = (a + b for a, b in zip(astuple(self)[:5], astuple(other)[:5], strict=True))
        return Ingested(*counts, closed=(*self.closed, *other.closed))


class Ledger:
    """An open ledger.

    Args:
        folder: the stream's folder.
        rule: when blocks close.

    Raises:
        UsageError: there is no stream there.
    """

    def __init__(self, folder: Path, rule: Rule) -> None:
        self.folder, self.rule = folder / "ledger", rule
        self.index = Index(self.folder / "index.sqlite")

    @classmethod
    def create(cls, folder: Path, rule: Rule) -> Ledger:
        """A new ledger in the stream's folder."""
        inside = folder / "ledger"
        for part in ("segments", "blocks"):
            (inside / part).mkdir(parents=True, exist_ok=True)
        about = {"next": "0", "salt": str(int.from_bytes(os.urandom(7), "little"))}
        Index.create(inside / "index.sqlite", about).close()
        return cls(folder, rule)

    def close(self) -> None:
        """Let go of the files."""
        self.index.close()

    def writing(self) -> AbstractContextManager[None]:
        """The lock of those that change events; others wait for it."""
        return held(self.folder / "lock", "changes its events", wait=_WAIT)

    def spool(self) -> Path:
        """Where lines of a pipe wait to be read, each pipe's in a folder that its process holds."""
        return self.folder / "spool"

    # events in

    def ingest(self, events: Events, *, now: float | None = None) -> Ingested:
        """Append what is new of a batch, in one transaction; a batch may be given again at any time.

        Args:
            events: the batch.
            now: Unix seconds of its arrival; None reads the clock.
        """
        now = time.time() if now is None else now
        with self.writing(), self._tidied():
            with self.index.change():
                done = self._ingested(events, now)
            found = merging.due(self.index, self.open_block(now).first)
            if found:
                with self.index.change():
                    gone = merging.merged(self.index, self.folder / "segments", found)
                for name in gone:
                    (self.folder / "segments" / name).unlink()
            if done.closed:
                self._settle(done.closed)
            return done

    def close_open(self, *, now: float | None = None, asked: bool = False) -> Block | None:
        """Close the open block if it is old enough by the clock, or if it is asked; the block, or None.

        A block with fewer events than the rule's `least` is left open unless it is asked; an empty one always is.
        """
        now = time.time() if now is None else now
        with self.writing(), self._tidied():
            block = self.open_block(now)
            old = self.rule.age is not None and now - block.opened >= self.rule.age and len(block) >= self.rule.least
            if len(block) == 0 or not (asked or old):
                return None
            why = "asked" if asked else "age"
            with self.index.change():
                self.index.run("UPDATE block SET closed = ?, why = ? WHERE number = ?", now, why, block.number)
                self._write(block.after(now))
            self._settle([block.number])
            return self.block(block.number)

    def _ingested(self, events: Events, now: float) -> Ingested:
        if not len(events):
            return Ingested(0, 0, 0, 0, 0, ())
        refused = forgotten.refused(self.index, events, now=now)
        place = np.flatnonzero(~refused)
        key = events.key[place]
        _, first = np.unique(key, return_index=True)  # ascending keys, which SQLite likes
        fresh = np.array(self.index.fresh(key[first].tolist()), np.int64)
        place = np.sort(place[first[np.isin(key[first], fresh)]])
        if events.timestamp is not None:
            place = place[np.argsort(events.timestamp[place], kind="stable")]
        number = int(self.index.value("SELECT value FROM about WHERE name = 'next'"))
        rows = Rows(
            number + np.arange(len(place)),
            self._numbered("user", events.users, events.user[place]),
            self._numbered("item", events.items, events.item[place]),
            None if events.timestamp is None else events.timestamp[place],
            None if events.weight is None else events.weight[place],
            events.key[place],
        )
        before = self.open_block(now)
        high = self.index.value("SELECT high FROM block WHERE number = ?", before.number - 1)
        if len(rows):
            name, size = segments.write(self.folder / "segments", rows)
            last = number + len(rows)
            self.index.run("INSERT INTO segment VALUES (?, ?, ?, ?, ?)", number, last, len(rows), name, size)
            self.index.run("UPDATE about SET value = ? WHERE name = 'next'", str(last))
        after = list(cut(before, rows, self.rule, high=high, now=now)) if len(rows) else [before]
        for block in after:
            self._write(block)
        late = 0 if high is None or rows.timestamp is None else int((rows.timestamp < high).sum())
        repeated = len(events) - int(refused.sum()) - len(rows)
        done = Ingested(len(events), len(rows), repeated, late, int(refused.sum()), tuple(b.number for b in after[:-1]))
        self.index.run(
            "INSERT INTO batch (at, read, new, repeated, late, refused) VALUES (?, ?, ?, ?, ?, ?)",
            *(now, done.read, done.new, done.repeated, done.late, done.refused),
        )
        return done

    def _numbered(self, table: str, ids: list[str], places: NDArray[np.int32]) -> NDArray[np.int32]:
        """(n,) places among a batch's ids -> (n,) rows; new ids get the next ones in order of first appearance."""
        used, first = np.unique(places, return_index=True)
        used = used[np.argsort(first, kind="stable")]
        asked = [ids[place] for place in used.tolist()]
        row = np.full(len(ids), -1, np.int64)
        for place, known in self.index.known(table, asked):
            row[used[place]] = known
        new = used[row[used] < 0]
        begin = self.size(table)
        row[new] = begin + np.arange(len(new))
        fresh = zip(range(begin, begin + len(new)), [ids[place] for place in new.tolist()], strict=True)
        self.index.many(f"INSERT INTO {table} VALUES (?, ?)", fresh)  # noqa: S608 - one of two names
        return row[places].astype(np.int32)

    def _write(self, block: Block) -> None:
        self.index.run(f"INSERT OR REPLACE INTO block ({_BLOCK}) VALUES (?,?,?,?,?,?,?,?,?,?,?)", *astuple(block))  # noqa: S608

    # blocks and events out

    def open_block(self, now: float | None = None) -> Block:
        """The block that takes what arrives; before the first event, one that opens `now`."""
        found = self.index.row(f"SELECT {_BLOCK} FROM block WHERE closed IS NULL")  # noqa: S608
        return Block(*found) if found else Block(0, 0, 0, 0, 0, None, None, 0, time.time() if now is None else now)

    def blocks(self) -> list[Block]:
        """Those that are closed, in order."""
        query = f"SELECT {_BLOCK} FROM block WHERE closed IS NOT NULL ORDER BY number"  # noqa: S608
        return [Block(*row) for row in self.index.rows(query)]

    def block(self, number: int) -> Block:
        """A closed block.

        Raises:
            UsageError: there is none of that number.
        """
        found = self.index.row(f"SELECT {_BLOCK} FROM block WHERE number = ? AND closed IS NOT NULL", number)  # noqa: S608
        if found is None:
            raise UsageError(problem("There is no closed block of that number", number))
        return Block(*found)

    def rows(self, first: int = 0, last: int | None = None) -> Rows:
        """The events numbered `first` up to, not including, `last`; those that are kept.

        Raises:
            DataError: a segment is gone, or damaged.
        """
        last = 1 << 62 if last is None else last
        return Rows.joined(self._read(first, last, lambda path, _: segments.read(path).within(first, last)))

    def pairs(self, last: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(n,) rows of users and (n,) of items of the events numbered below `last`; no other column is read.

        Raises:
            DataError: a segment is gone, or damaged.
        """
        parts = self._read(0, last, lambda path, end: segments.read_pairs(path, last if end > last else None))
        none = np.zeros(0, np.int32)
        user, item = (np.concatenate([none, *side]) for side in (zip(*parts, strict=True) if parts else ((), ())))
        return user, item

    def _read(self, first: int, last: int, part: Callable[[Path, int], _T]) -> list[_T]:
        """What `part` makes of each segment with events of that range, given one past its last number."""
        query = "SELECT name, last FROM segment WHERE first < ? AND last > ? ORDER BY first"
        for left in reversed(range(_AGAIN)):
            found = self.index.rows(query, last, first)
            try:
                return [part(self.folder / "segments" / name, end) for name, end in found]
            except DataError:  # an ingest has merged it meanwhile
                if not left:
                    raise
        raise AssertionError

    def size(self, table: str) -> int:
        """How many rows users or items have, the forgotten included."""
        query = {"user": "SELECT max(row) FROM user", "item": "SELECT max(row) FROM item"}[table]
        found = self.index.value(query)
        return 0 if found is None else found + 1

    def ids(self, table: str, n: int) -> list[str | None]:
        """The ids of rows 0 to n - 1; None where a person was forgotten."""
        query = {
            "user": "SELECT id FROM user WHERE row < ? ORDER BY row",
            "item": "SELECT id FROM item WHERE row < ? ORDER BY row",
        }
        return [cast("str | None", one) for (one,) in self.index.rows(query[table], n)]

    def row_of(self, user: str) -> int | None:
        """A user's row; None for one that is unknown, or forgotten."""
        return self.index.value("SELECT row FROM user WHERE id = ?", user)

    def items_of(self, users: Sequence[str], first: int = 0) -> dict[str, list[str]]:
        """What users did from event `first` on: item ids, each once, oldest first; who did nothing is left out."""
        name = {row: users[place] for place, row in self.index.known("user", users)}
        rows = self.rows(first)
        mine = np.isin(rows.user, list(name))
        items = {row: self.id_of("item", row) for row in np.unique(rows.item[mine]).tolist()}
        out: dict[str, dict[str, None]] = {}
        for user, item in zip(rows.user[mine].tolist(), rows.item[mine].tolist(), strict=True):
            if (one := items[item]) is not None:
                out.setdefault(name[user], {})[one] = None
        return {user: list(done) for user, done in out.items()}

    def id_of(self, table: str, row: int) -> str | None:
        """The id of a row of "user" or "item"; None where there is none, or a person was forgotten."""
        query = {"user": "SELECT id FROM user WHERE row = ?", "item": "SELECT id FROM item WHERE row = ?"}
        return self.index.value(query[table], row)

    def counts(self) -> dict[str, int]:
        """Events, users, items, segments and bytes that are kept."""
        events, n, size = self.index.row(
            "SELECT coalesce(sum(n), 0), count(*), coalesce(sum(bytes), 0) FROM segment"
        ) or (0, 0, 0)
        users = self.index.value("SELECT count(id) FROM user")
        return {"events": events, "users": users, "items": self.size("item"), "segments": n, "segment_bytes": size}

    # upkeep

    def tidy(self) -> None:
        """Do what killed processes have left: remove segments that were never recorded and lines, write manifests."""
        recorded = {name for (name,) in self.index.rows("SELECT name FROM segment")}
        for file in (self.folder / "segments").iterdir():
            if file.name not in recorded:
                file.unlink()
        self._settle()
        sweep(self.spool())

    def _settle(self, numbers: Sequence[int] | None = None) -> None:
        """Make the manifests of closed blocks say what the index says: of some, or of all and no others."""
        query = "SELECT name FROM segment WHERE first < ? AND last > ? ORDER BY first"
        wanted: dict[int, bytes] = {}
        for block in self.blocks() if numbers is None else map(self.block, numbers):
            before = self.block(block.number - 1) if block.number else None
            names = [name for (name,) in self.index.rows(query, block.last, block.first)]
            wanted[block.number] = manifests.text_of(block, before, names)
        manifests.settle(self.folder / "blocks", wanted, only=numbers is None)

    @contextmanager
    def _tidied(self) -> Generator[None]:
        """A mark stands while files change; whoever finds it tidies first, so that others need not list files."""
        sweep(self.spool())
        mark = self.folder / "unfinished"
        left = mark.exists() or not (self.folder / "blocks").exists()  # a stream from before there were manifests
        mark.touch()
        if left:
            self.tidy()
        yield
        mark.unlink()

    def compact(self) -> int:
        """Merge the small segments of each closed block, those of the same columns; how many fewer files there are."""
        fewer = 0
        query = "SELECT first, last, n, name FROM segment WHERE first >= ? AND last <= ? ORDER BY first"
        for block in self.blocks():
            found = self.index.rows(query, block.first, block.last)
            if len(found) < 2:
                continue
            with self.writing(), self._tidied():
                with self.index.change():
                    gone = merging.merged(self.index, self.folder / "segments", found)
                for name in gone:
                    (self.folder / "segments" / name).unlink()
                less = len(found) - len(self.index.rows(query, block.first, block.last))
                if less:  # `gone` may be empty all the same: emptied segments share a file
                    self._settle([block.number])
            fewer += less
        return fewer

    def drop(self, last: int) -> int:
        """Remove the events numbered below `last`; the bytes that came free. Their keys stay, so that they stay out."""
        query = "SELECT first, last, name FROM segment WHERE first < ?"
        before = self.counts()["segment_bytes"]
        with self.writing(), self._tidied():
            with self.index.change():
                for first, end, name in self.index.rows(query, last):
                    self.index.run("DELETE FROM segment WHERE first = ?", first)
                    if end <= last:
                        continue
                    kept = segments.read(self.folder / "segments" / name).within(last, end)
                    new, size = segments.write(self.folder / "segments", kept)
                    self.index.run("INSERT INTO segment VALUES (?, ?, ?, ?, ?)", last, end, len(kept), new, size)
            self.tidy()
        return before - self.counts()["segment_bytes"]

    def erase(self, users: Sequence[int], *, now: float) -> None:
        """Remove events of users, their keys and the ids; the rows stay, empty. May be repeated after a kill.

        Called with the lock `writing` held.
        """
        with self._tidied():
            for first, name in self.index.rows("SELECT first, name FROM segment"):
                rows = segments.read(self.folder / "segments" / name)
                theirs = np.isin(rows.user, users)
                if not theirs.any():
                    continue
                kept = rows.take(~theirs)
                new, size = segments.write(self.folder / "segments", kept)
                with self.index.change():
                    self.index.many("DELETE FROM event WHERE key = ?", [(key,) for key in rows.key[theirs].tolist()])
                    self.index.run(
                        "UPDATE segment SET n = ?, name = ?, bytes = ? WHERE first = ?", len(kept), new, size, first
                    )
            with self.index.change():
                for row in users:
                    forgotten.forget(self.index, row, now=now)
            self.tidy()
