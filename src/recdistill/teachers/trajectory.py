"""One teacher at several moments of its training, or several teachers from easy to hard: what HetComp climbs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import fingerprint_of
from recdistill.teachers.ensemble import Ensemble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recdistill.knowledge.view import Kind, Knows, View
    from recdistill.query import Query

__all__ = ["Steps", "Trajectory", "courses", "trajectory"]


@dataclass(frozen=True, slots=True)
class Steps:
    """A trajectory whose steps are still to be matched to a training log."""

    steps: tuple[Any, ...]
    """What `distill` takes as a teacher, each, from the first to the last."""


def trajectory(*steps: object) -> Steps:
    """One teacher as it was at several moments, from the first to the last, for `distill`.

    A method that knows of trajectories ("hetcomp") climbs from step to step; any other asks the last one.

    Raises:
        UsageError: no step.
    """
    if not steps:
        raise UsageError(problem("A trajectory needs at least one step"))
    return Steps(steps)


class Trajectory:
    """Teachers from the first to the last; alone it is the last."""

    def __init__(self, steps: Sequence[Knows]) -> None:
        """Raises `UsageError` where there is no step."""
        if not steps:
            raise UsageError(problem("A trajectory needs at least one step"))
        self.steps = tuple(steps)

    @property
    def provides(self) -> frozenset[Kind]:
        """What every step provides."""
        return frozenset.intersection(*(step.provides for step in self.steps))

    def view(self, query: Query) -> View:
        """What the last step knows of a batch of queries."""
        return self.steps[-1].view(query)

    @property
    def fingerprint(self) -> str:
        """A digest of theirs, in their order."""
        parts = "\n".join(map(fingerprint_of, self.steps))
        return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


def courses(teacher: Knows) -> list[tuple[Knows, ...]]:
    """A teacher's members, each with its steps: one member of one step, where it has no parts."""
    members = teacher.members if isinstance(teacher, Ensemble) else (teacher,)
    return [member.steps if isinstance(member, Trajectory) else (member,) for member in members]
