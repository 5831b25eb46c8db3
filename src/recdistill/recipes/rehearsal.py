"""A training without its epochs: what cannot be is said before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recdistill.errors import MissingKnowledge, UsageError
from recdistill.recipes.members import joined_members
from recdistill.recipes.train import distill, fit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from recdistill.recipes.lessons import Lesson, Lessons
    from recdistill.recipes.teaching import Teacher
    from recdistill.recipes.train import TrainSettings
    from recdistill.recipes.trained import Trained
    from recdistill.settings import Settings

__all__ = ["refused", "rehearse", "stand_in", "unable", "why"]

_NO_EPOCHS = {"epochs": 0, "device": "cpu"}


def stand_in(bench: Lessons) -> Teacher | None:
    """Somebody who gives what the run's teacher will give: its files, or its models before their training.

    Raises:
        UsageError: a member cannot give what the others are combined by.
        DataError: a file cannot be used.
    """
    teacher, plan, train = bench.run.teacher, bench.plan, bench.split.train

    def untrained(name: str, model: str, settings: Settings, training: TrainSettings) -> Trained:
        del name
        shown, training = settings.model_dump(mode="json"), training.model_copy(update=_NO_EPOCHS)
        return fit(model, train, settings=shown, training=training, seed=bench.seed, echo=None)

    if teacher.members:
        return joined_members(teacher, plan.members, bench.split, say=lambda _: None, learn=untrained)
    if teacher.model is not None and plan.teacher is not None:
        return untrained("teacher", teacher.model, plan.teacher, plan.teacher_train)
    return bench.foreign if teacher.given else None


def rehearse(teacher: Teacher | None, lesson: Lesson) -> None:
    """Build all that a training needs, and train nothing.

    Args:
        teacher: whom the method asks.
        lesson: the student and how it is taught.

    Raises:
        UsageError: the method cannot teach such a student, or not by such a teacher.
    """
    distill(
        None if lesson.method == "plain" else teacher,
        lesson.model,
        lesson.bench.split.train,
        method=lesson.method,
        settings=lesson.how,
        model_settings=lesson.settings,
        training=lesson.training.model_copy(update=_NO_EPOCHS),
        echo=None,
    )


def unable(teacher: Teacher | None, lessons: Iterable[Lesson]) -> dict[str, UsageError]:
    """What rehearsals failed of, by the names of their lessons; empty where all can be taught.

    Args:
        teacher: whom the methods ask.
        lessons: the students and how they are taught.
    """
    wrong: dict[str, UsageError] = {}
    for lesson in lessons:
        try:
            rehearse(teacher, lesson)
        except UsageError as error:
            wrong[lesson.name] = error
    return wrong


def refused(wrong: Mapping[str, UsageError]) -> UsageError:
    """Everything that rehearsals failed of as one error, each with its remedy; the error itself where there is one."""
    said: dict[str, list[str]] = {}
    for name, error in wrong.items():
        said.setdefault(str(error), []).append(name)
    if len(said) == 1:
        return next(iter(wrong.values()))
    return UsageError("\n".join(f"{', '.join(map(repr, names))}: {text}" for text, names in said.items()))


def why(error: UsageError) -> str:
    """What a rehearsal failed of, in a clause: without remedies."""
    if isinstance(error, MissingKnowledge):
        return f"{error.source} cannot give {error.kind}"
    return str(error).splitlines()[0].rstrip(".")
