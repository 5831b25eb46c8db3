"""Forgetting people: what deletion removes, at once; what it cannot, with a date.

Removed: the events that are kept and their keys, the id, the person's rows in every table, list, proxy, block and
holdout, and the row in every published version. The row number stays, empty, so that nobody else's moves.

Not removed: the keys of events that were dropped for the disk's budget (`disk.drop_events`). They keep those events
out, and nothing tells whose they were; but they are hashes without salt, so that whoever has the folder can test a
guess of user, item and time.

Not removable by deletion: the person's influence on the vectors of others. The proxies begin anew after
`forget.proxies` teacher cycles, which bounds their memory; after `forget.retrain` teacher cycles every teacher is
trained from scratch on the events that are kept, and a student is distilled from them alone. Once its gate lets it
through nothing is left; until then the retrain stays due.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recdistill.stream.stream import Stream

__all__ = ["finish", "forget"]


def forget(stream: Stream, users: Sequence[str], *, now: float) -> dict[str, int]:
    """Remove people; may be killed and repeated.

    Args:
        stream: with the lock of `step` held.
        users: the external ids.
        now: Unix seconds.

    Returns:
        How many objects and versions held any of them, and the cycles at which the rest is due.

    Raises:
        UsageError: there is nobody of one of these ids; nobody is removed then.
    """
    finished = finish(stream)
    rows = {user: stream.ledger.row_of(user) for user in users}
    unknown = [user for user, row in rows.items() if row is None]
    if finished is not None and len(unknown) == len(rows):
        return finished  # the same command, repeated after a kill
    if unknown or not rows:
        remedy = "Give the id as it stands in the log; who was forgotten already is not known any more"
        raise UsageError(problem("There is no user of that id", next(iter(unknown), None), remedy=remedy))
    with stream.ledger.index.change():
        stream.ledger.index.many("INSERT OR IGNORE INTO forgetting VALUES (?)", [(row,) for row in rows.values()])
    return _done(stream, now)


def finish(stream: Stream) -> dict[str, int] | None:
    """Go on with what was killed; as `forget`, None where there was nothing."""
    return _done(stream, time.time()) if stream.ledger.index.value("SELECT count(*) FROM forgetting") else None


def _done(stream: Stream, now: float) -> dict[str, int]:
    ledger = stream.ledger
    with ledger.writing():
        shutil.rmtree(stream.folder / "work", ignore_errors=True)  # checkpoints hold everyone's rows
        people = ledger.index.rows("SELECT row, id FROM user WHERE row IN (SELECT user FROM forgetting)")
        rows = [row for row, _ in people]
        ids = [user for _, user in people if user is not None]
        versions = {name for name in stream.versions.names() for user in ids if stream.versions.erase(name, user)}
        objects = {key for key in stream.objects.names() for row in rows if stream.objects.erase(key, row)}
        (stream.folder / "report.html").unlink(missing_ok=True)
        ledger.erase(rows, now=now)
        ledger.index.scrub()  # if it cannot, they stay on the list of those to be forgotten
        due = _schedule(stream, rows)
        ledger.index.settle()
    return {"versions": len(versions), "objects": len(objects), **due}


def _schedule(stream: Stream, rows: list[int]) -> dict[str, int]:
    """Say when the rest is due, and that the deletion is done, in one transaction."""
    index, every = stream.ledger.index, stream.settings.teacher.every
    last = index.value("SELECT max(cycle) FROM stage WHERE stage = 'proxies'")
    begun = index.value("SELECT max(cycle) FROM stage WHERE stage LIKE 'teacher%'")
    latest = max(-every if last is None else last, -every if begun is None else begun)
    wait = stream.settings.forget
    due = {"proxies": latest + wait.proxies * every, "retrain": latest + wait.retrain * every}
    with index.change():
        told = [(what, cycle, "a person was forgotten") for _ in rows for what, cycle in due.items()]
        index.many("INSERT INTO due (what, cycle, why) VALUES (?, ?, ?)", told)
        index.many("DELETE FROM forgetting WHERE user = ?", [(row,) for row in rows])
    return due
