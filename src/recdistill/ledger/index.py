"""The index of a stream: one SQLite file in WAL mode.

Every change is one transaction, so a process killed anywhere leaves the state before or after it. What is deleted is
overwritten (`secure_delete`), and `scrub` leaves no free page and no write-ahead log behind.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recdistill.errors import DataError, UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

__all__ = ["Index"]

VERSION = 1
_WAIT = 60.0  # seconds for another process's transaction
_CHUNK = 50_000

_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE user (row INTEGER PRIMARY KEY, id TEXT UNIQUE);
CREATE TABLE item (row INTEGER PRIMARY KEY, id TEXT UNIQUE);
CREATE TABLE event (key INTEGER PRIMARY KEY);
CREATE TABLE segment (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, n INTEGER NOT NULL, name TEXT NOT NULL,
    bytes INTEGER NOT NULL);
CREATE TABLE block (number INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, users INTEGER NOT NULL,
    items INTEGER NOT NULL, low INTEGER, high INTEGER, late INTEGER NOT NULL, opened REAL NOT NULL, closed REAL,
    why TEXT);
CREATE TABLE batch (number INTEGER PRIMARY KEY, at REAL NOT NULL, read INTEGER NOT NULL, new INTEGER NOT NULL,
    repeated INTEGER NOT NULL, late INTEGER NOT NULL, refused INTEGER NOT NULL);
CREATE TABLE stage (cycle INTEGER NOT NULL, stage TEXT NOT NULL, object TEXT NOT NULL, measured TEXT NOT NULL,
    seconds REAL NOT NULL, at REAL NOT NULL, PRIMARY KEY (cycle, stage)) WITHOUT ROWID;
CREATE TABLE rollback (at REAL NOT NULL, version TEXT NOT NULL, instead TEXT NOT NULL);
CREATE TABLE forgetting (user INTEGER PRIMARY KEY);
CREATE TABLE forgotten (mark INTEGER PRIMARY KEY, at REAL NOT NULL, before INTEGER);
CREATE TABLE due (what TEXT NOT NULL, cycle INTEGER NOT NULL, why TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0);
"""


class Index:
    """An open index; a context manager that closes it.

    Args:
        path: the file.

    Raises:
        UsageError: there is none; DataError: it is of another version, or no index.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(
                problem(f"There is no stream at {path.parent.parent}", remedy="Begin one with `recdistill stream init`")
            )
        self.path = path
        self._db = _connected(path)
        try:
            found = self.value("SELECT value FROM about WHERE name = 'version'")
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise DataError(problem(f"{path} is no index of a stream ({error})", remedy="Restore a copy")) from None
        if found != str(VERSION):
            self._db.close()
            remedy = "Use the release that made it"
            raise DataError(problem(f"{path} has another version", found, allowed=str(VERSION), remedy=remedy))

    @classmethod
    def create(cls, path: Path, about: dict[str, str]) -> Index:
        """A new, empty index.

        Args:
            path: the file, in a folder that is there.
            about: what is told of the stream, by name.
        """
        db = _connected(path)
        try:
            db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            db.executemany("INSERT INTO about VALUES (?, ?)", [("version", str(VERSION)), *about.items()])
        finally:
            db.close()
        return cls(path)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @contextmanager
    def change(self) -> Generator[None]:
        """All statements inside become true at once, or none does.

        Raises:
            UsageError: another process has been writing for a minute.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            remedy = "Wait until it has finished"
            raise UsageError(problem(f"Another process writes to {self.path}", remedy=remedy)) from None
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def run(self, statement: str, *values: Any) -> None:  # noqa: ANN401 - what SQLite holds
        """One statement."""
        self._db.execute(statement, values)

    def many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for each row of values."""
        self._db.executemany(statement, rows)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401
        """Everything a query finds."""
        return self._db.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> tuple[Any, ...] | None:  # noqa: ANN401
        """The first row a query finds."""
        return self._db.execute(query, values).fetchone()

    def value(self, query: str, *values: Any) -> Any:  # noqa: ANN401
        """The first value a query finds, or None."""
        found = self.row(query, *values)
        return None if found is None else found[0]

    def fresh(self, keys: Sequence[int]) -> list[int]:
        """Add event keys; those that were not there before, in no order."""
        found: list[int] = []
        for start in range(0, len(keys), _CHUNK):
            statement = "INSERT OR IGNORE INTO event (key) SELECT value FROM json_each(?) RETURNING key"
            part = json.dumps(keys[start : start + _CHUNK])
            found.extend(key for (key,) in self._db.execute(statement, (part,)))
        return found

    def known(self, table: str, ids: Sequence[str]) -> list[tuple[int, int]]:
        """(place among `ids`, row) of the ids that the table "user" or "item" has."""
        found: list[tuple[int, int]] = []
        query = f"SELECT asked.key, t.row FROM json_each(?) AS asked JOIN {_table(table)} AS t ON t.id = asked.value"  # noqa: S608
        for start in range(0, len(ids), _CHUNK):
            chunk = [None if "\0" in one else one for one in ids[start : start + _CHUNK]]
            found.extend((start + place, row) for place, row in self._db.execute(query, (json.dumps(chunk),)))
        for place, one in enumerate(ids):
            if "\0" in one:  # json_each ends a text there
                row = self.value(f"SELECT row FROM {_table(table)} WHERE id = ?", one)  # noqa: S608
                found.extend([] if row is None else [(place, row)])
        return found

    def settle(self) -> None:
        """Empty the write-ahead log if nobody reads it."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def scrub(self) -> None:
        """Rebuild the file without free pages, and empty the write-ahead log.

        Raises:
            UsageError: another process reads the index, so that its log must stay.
        """
        self._db.execute("VACUUM")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        busy, pages, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # whether the first left any
        if busy or pages > 0:
            remedy = "End the processes that have it open, and repeat the command"
            raise UsageError(problem(f"The log of {self.path} cannot be emptied: it is being read", remedy=remedy))


def _table(name: str) -> str:
    return {"user": "user", "item": "item"}[name]


def _connected(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_WAIT, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = ON")
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute("PRAGMA cache_size = -131072")  # kB
    return db
