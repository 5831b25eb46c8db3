"""What can be a teacher, and what it is to terms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill.data.matching import same_tables
from recdistill.errors import MissingKnowledge, UsageError, problem
from recdistill.knowledge.view import Kind, Knows
from recdistill.methods.base import served_by
from recdistill.recipes.teacherfile import BY_SCORES, OF_RANKS
from recdistill.recipes.trained import Trained
from recdistill.teachers.ensemble import Ensemble, Members
from recdistill.teachers.live import Live
from recdistill.teachers.stored import Elsewhere
from recdistill.teachers.trajectory import Steps, Trajectory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recdistill.data.interactions import Interactions

__all__ = ["Teacher", "check_capable", "check_logits", "known", "served"]

Teacher = Trained | Elsewhere | Members | Steps | Knows
"""What can be a teacher: a trained model, files, several of either, or anything that gives views."""


def known(teacher: Teacher | None, train: Interactions) -> Knows | None:
    """What a teacher is to terms: a trained model frozen, files matched to the log's rows, an ensemble of such.

    Raises:
        UsageError: a model trained on other users or items, or a path.
    """
    if isinstance(teacher, Trained):
        remedy = "Split one log for both, or save the teacher and give rd.teacher(bundle=...), which is matched by ids"
        same_tables("The teacher", teacher.train, "the training data", train, remedy=remedy)
        return Live(teacher.model, seen=train.csr())
    if isinstance(teacher, Members):
        members = [_taught(member, train, "ensemble") for member in teacher.members]
        return Ensemble(members, n_users=train.n_users, **teacher.settings)
    if isinstance(teacher, Steps):
        return Trajectory([_taught(step, train, "trajectory") for step in teacher.steps])
    if isinstance(teacher, Elsewhere):
        return teacher.matched(users=train.users, items=train.items, seen=train.csr())
    if isinstance(teacher, str | Path):
        remedy = f"Say what the file holds: rd.teacher(lists={str(teacher)!r}), or scores=, vectors=, bundle="
        raise UsageError(problem("A path alone is no teacher", str(teacher), remedy=remedy))
    if teacher is not None and not isinstance(teacher, Knows):  # pyright: ignore[reportUnnecessaryIsInstance]
        allowed = "what `fit` returned, rd.teacher(lists=...), or anything with `provides` and `view`"
        raise UsageError(problem("This is no teacher", type(teacher).__name__, allowed=allowed))
    return teacher


def _taught(member: Any, train: Interactions, of: str) -> Knows:  # noqa: ANN401 - whatever a user gave
    knows = known(member, train)
    if knows is None:
        raise UsageError(problem(f"None is no member of an {of}" if of == "ensemble" else "None is no step", None))
    return knows


def served(teacher: Knows) -> list[str]:
    """The methods that a teacher can serve with their default settings, by name."""
    return served_by(teacher.provides - {Kind.SCORES} if _of_ranks(teacher) else teacher.provides)


def _of_ranks(teacher: Knows | None) -> bool:
    return isinstance(teacher, Ensemble) and teacher.by == "ranks"


def check_logits(teacher: Knows | None, method: str, asks: frozenset[Kind]) -> None:
    """Refuse a method that reads scores as logits where they are worths of ranks, which are all but alike.

    Raises:
        UsageError: the teacher is an ensemble by ranks, and the method asks for scores.
    """
    if _of_ranks(teacher) and Kind.SCORES in asks:
        raise UsageError(problem(OF_RANKS.format(method=method), remedy=f"{BY_SCORES}, or choose another method"))


def check_capable(missing: Sequence[MissingKnowledge], teacher: Knows | None) -> None:
    """Say all that a method asks and does not get at once, before the first batch, and which methods would get it.

    Raises:
        MissingKnowledge: one thing is missing.
        UsageError: several are.
    """
    if not missing:
        return
    can = served(teacher) if teacher is not None else []
    hint = (
        f"Methods that this teacher can serve: {', '.join(can)}." if can else "No method can learn from this teacher."
    )
    if len(missing) == 1:
        raise MissingKnowledge(missing[0].kind, missing[0].source, f"{missing[0].remedy}. {hint}")
    raise UsageError("\n".join([*map(str, missing), hint]))
