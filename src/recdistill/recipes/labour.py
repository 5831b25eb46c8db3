"""Work that several processes share: each takes what nobody is at, and a process that dies frees what it had.

There is no list of who does what: a task is taken by a lock that the operating system releases with its owner, and it
is finished when its result is there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recdistill.recipes.cells import Cells

__all__ = ["Task", "work_through"]

_LOOK = 1.0  # seconds between looks at whether another process has finished


@dataclass(frozen=True)
class Task:
    """A piece of work."""

    name: str
    """Of its lock; two tasks with one name are never done at once."""
    done: Callable[[], bool]
    """Whether its result is there; asked often."""
    ready: Callable[[], bool]
    """Whether what it needs is there."""
    do: Callable[[], object]


def work_through(
    tasks: Sequence[Task],
    cells: Cells,
    *,
    told: Callable[[Task], object],
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Do every task that nobody else does, and come back when all are done, whoever did them.

    Args:
        tasks: in the order of preference; what a task needs is among them.
        cells: the folder of the locks.
        told: called with every task that was done here.
        sleep: called between looks while others are at all that could be done.
    """
    left = list(tasks)
    while left := [task for task in left if not task.done()]:
        if not any(_taken(task, cells, told) for task in left if task.ready()):
            sleep(_LOOK)


def _taken(task: Task, cells: Cells, told: Callable[[Task], object]) -> bool:
    """Whether it was free, and so is done now."""
    with cells.claim(f"task-{task.name}", "task") as mine:
        if mine and not task.done():
            task.do()
            told(task)
        return mine
