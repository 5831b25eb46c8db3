"""Where one block ends and the next begins: by count or by age, whichever comes first.

Letters: n events of a batch, by time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from recdistill.ledger.segments import Rows

__all__ = ["Block", "Rule", "cut"]


@dataclass(frozen=True, slots=True)
class Rule:
    """When a block closes."""

    base: int
    """Events of block 0."""
    events: int
    """Events of every later block."""
    age: int | None = None
    """Seconds between a block's first event and the first one that is too late for it; None closes by count alone."""
    least: int = 1
    """A block with fewer events waits for more, whatever its age."""

    def __post_init__(self) -> None:
        for name, value in (("base", self.base), ("events", self.events), ("least", self.least)):
            if value < 1:
                raise UsageError(problem(f"The rule of blocks needs at least 1 as {name!r}", value))

    def size(self, number: int) -> int:
        """Events that fill block `number`."""
        return self.events if number else self.base


@dataclass(frozen=True, slots=True)
class Block:
    """A run of events. Its numbers are fixed when it closes."""

    number: int
    first: int
    """The number of its first event."""
    last: int
    """One past the number of its last event."""
    users: int
    """Users known at its end: rows 0 to users - 1."""
    items: int
    low: int | None
    """Unix seconds its age counts from; None as long as no event had a time."""
    high: int | None
    """The latest time seen by its end, earlier blocks included."""
    late: int
    """Events older than the end of the block before."""
    opened: float
    """When its first event arrived, Unix seconds."""
    closed: float | None = None
    why: str | None = None
    """ "count", "age" or "asked"."""

    def __len__(self) -> int:
        return self.last - self.first

    def after(self, now: float) -> Block:
        """The empty block that follows."""
        return Block(self.number + 1, self.last, self.last, self.users, self.items, None, self.high, 0, now)

    def taking(self, rows: Rows, high: int | None) -> Block:
        """With events appended; `high` is the end of the block before."""
        if not len(rows):
            return self
        grown = replace(
            self,
            last=int(rows.number[-1]) + 1,
            users=max(self.users, int(rows.user.max()) + 1),
            items=max(self.items, int(rows.item.max()) + 1),
        )
        if rows.timestamp is None:
            return grown
        begins = int(rows.timestamp[0]) if high is None else max(int(rows.timestamp[0]), high)
        latest = int(rows.timestamp.max())
        return replace(
            grown,
            low=begins if self.low is None else self.low,
            high=latest if self.high is None else max(self.high, latest),
            late=self.late + (0 if high is None else int((rows.timestamp < high).sum())),
        )


def cut(block: Block, rows: Rows, rule: Rule, *, high: int | None, now: float) -> Iterator[Block]:
    """The open block with a batch appended, and the blocks that follow; all but the last are closed.

    Args:
        block: the open block.
        rows: (n,) new events by ascending number and time.
        rule: when blocks close.
        high: the end of the last closed block.
        now: when the batch arrived.
    """
    at = 0
    while True:
        end, why = _end(block, rows.timestamp, at, len(rows), rule=rule, high=high)
        block = block.taking(rows.take(slice(at, end)), high)
        if why is None:
            yield block
            return
        yield replace(block, closed=now, why=why)
        high, at = block.high, end
        block = block.after(now)


def _end(
    block: Block, times: NDArray[np.int64] | None, at: int, n: int, *, rule: Rule, high: int | None
) -> tuple[int, str | None]:
    """Where in the batch the block ends, and why; the batch's end and None where it stays open."""
    full = at + max(rule.size(block.number) - len(block), 0)
    if rule.age is not None and times is not None and at < n:
        low = block.low
        if low is None:
            low = int(times[at]) if high is None else max(int(times[at]), high)
        old = at + int(np.searchsorted(times[at:n], low + rule.age))
        old = max(old, at + rule.least - len(block))
        if old < min(full, n):
            return old, "age"
    return (full, "count") if full <= n else (n, None)
