"""What is minimised: terms, their weights, and the passes over the data they belong to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from torch import nn

from recdistill.clock import Clock, Schedule, constant
from recdistill.errors import MissingKnowledge, UsageError, problem
from recdistill.knowledge.view import GIVES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from recdistill.knowledge.view import Kind, Knows, View
    from recdistill.models.base import Recommender
    from recdistill.query import Batch, Rows
    from recdistill.runtime import How, Runtime

__all__ = ["Batches", "Objective", "Pass", "Term"]


class Term(nn.Module, ABC):
    """One summand of a loss. It may own projectors or experts: they are trained, and never exported."""

    of_teacher: ClassVar[frozenset[Kind]] = frozenset()
    """What it asks of the teacher's view."""
    of_student: ClassVar[frozenset[Kind]] = frozenset()
    """What it asks of the student's view."""
    scope: ClassVar[Literal["row", "batch"]] = "row"
    """ "batch": it relates rows to each other, so the rows of all processes are gathered first."""
    how: How = "sum"
    """How its rows become one number. Papers that sum say "sum"; their weights then carry over."""

    @abstractmethod
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        """One value per row, not reduced."""


class Batches(Protocol):
    """What a pass runs over."""

    def __len__(self) -> int:
        """Steps an epoch."""
        ...

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from batch `start` on: a function of the epoch alone."""
        ...


class Objective(nn.Module):
    """A weighted sum of named terms: `Objective(base=(1.0, bpr), rrd=(1e-3, ranking))`."""

    def __init__(self, **terms: tuple[float | Schedule, Term]) -> None:
        """Name the terms; a weight is a number or a schedule."""
        super().__init__()
        self._weights: dict[str, Schedule] = {
            name: weight if callable(weight) else constant(float(weight)) for name, (weight, _) in terms.items()
        }
        self.terms = nn.ModuleDict({name: term for name, (_, term) in terms.items()})

    def named_terms(self) -> Iterator[tuple[str, Term]]:
        """The terms by name, in the order given."""
        for name, term in self.terms.items():
            assert isinstance(term, Term)  # noqa: S101 - ModuleDict forgets what it holds
            yield name, term

    def parts(self) -> dict[str, tuple[Schedule, Term]]:
        """The terms and their weights by name, as another objective takes them."""
        return {name: (self._weights[name], term) for name, term in self.named_terms()}

    def forward(
        self, student: View, teacher: View | None, batch: Batch, clock: Clock, runtime: Runtime
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The number to minimise, and each term's weighted part of it, detached."""
        parts: dict[str, Tensor] = {}
        total: Tensor | None = None
        for name, term in self.named_terms():
            part = self._weights[name](clock) * runtime.reduce(term(student, teacher, batch, clock), term.how)
            total = part if total is None else total + part
            parts[name] = part.detach()
        if total is None:
            raise UsageError(problem("An objective needs at least one term"))
        return total, parts


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One way through the data: batches, an objective over them, and the teacher it looks at."""

    name: str
    batches: Batches
    objective: Objective
    teacher: Knows | None = None
    interleave: Literal["step", "epoch"] = "step"
    """ "step": its steps are dealt evenly among those of the other passes; "epoch": it runs after them."""
    updates: tuple[str, ...] = ("weights",)
    """Which groups of parameters its steps update: "weights" are all that are in no other group."""
    begins: Mapping[str, int] = field(default_factory=dict[str, int])
    """The epoch from which it updates a group, 0 where none is said: before, the group has no gradient."""
    begin: Callable[[Clock], None] | None = None
    """Called before each of its steps: a search samples an architecture."""
    learner: Recommender | None = None
    """Who learns in its steps; None = the run's. In mutual distillation the teacher learns in a pass of its own."""

    def check(self, student: frozenset[Kind]) -> list[MissingKnowledge]:
        """Everything its terms ask that the student or the teacher cannot give; empty when all is well."""
        missing: list[MissingKnowledge] = []
        student = student if self.learner is None else self.learner.provides
        has = self.teacher.provides if self.teacher is not None else frozenset[str]()
        for name, term in self.objective.named_terms():
            for kind in sorted(term.of_teacher - has):
                who = f"The teacher ({', '.join(sorted(has)) or 'none given'})"
                remedy = f"The term {name!r} asks for it: give {GIVES[kind]}; or choose another method"
                missing.append(MissingKnowledge(kind, who, remedy))
            for kind in sorted(term.of_student - student):
                remedy = f"The term {name!r} asks for it: choose a student model that provides {kind}"
                missing.append(MissingKnowledge(kind, f"The student ({', '.join(sorted(student))})", remedy))
        return missing
