"""A training without its epochs: what cannot be is said before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recdistill.errors import MissingKnowledge, UsageError
from recdistill.recipes.members import joined_members
from recdistill.recipes.train import distill, fit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recdistill.recipes.lessons import Lessons
    from recdistill.recipes.teaching import Teacher
    from recdistill.recipes.train import TrainSettings
    from recdistill.recipes.trained import Trained
    from recdistill.settings import Settings

__all__ = ["rehearse", "stand_in", "why"]

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


def rehearse(
    bench: Lessons,
    teacher: Teacher | None,
    *,
    method: str,
    how: Mapping[str, Any],
    model: str,
    settings: Mapping[str, Any],
    training: TrainSettings,
) -> None:
    """Build all that a training needs, and train nothing.

    Args:
        bench: whose log.
        teacher: whom the method asks.
        method: a registered name.
        how: its settings.
        model: the student: a registered name.
        settings: the model's.
        training: how it is trained, but for the epochs.

    Raises:
        UsageError: the method cannot teach such a student, or not by such a teacher.
    """
    distill(
        None if method == "plain" else teacher,
        model,
        bench.split.train,
        method=method,
        settings=how,
        model_settings=settings,
        training=training.model_copy(update=_NO_EPOCHS),
        echo=None,
    )


def why(error: UsageError) -> str:
    """What a rehearsal failed of, in a clause: without remedies."""
    if isinstance(error, MissingKnowledge):
        return f"{error.source} cannot give {error.kind}"
    return str(error).splitlines()[0].rstrip(".")
