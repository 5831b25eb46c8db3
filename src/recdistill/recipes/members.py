"""[[teacher.members]] of a run file: several teachers, trained or read, as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from recdistill.recipes.leaks import leaks
from recdistill.recipes.teacherfile import elsewhere
from recdistill.teachers.ensemble import Ensemble
from recdistill.teachers.live import Live
from recdistill.teachers.trajectory import Steps, Trajectory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recdistill.data.interactions import Split
    from recdistill.knowledge.view import Knows
    from recdistill.recipes.teacherfile import Source, Teacher
    from recdistill.recipes.train import TrainSettings
    from recdistill.recipes.trained import Trained
    from recdistill.settings import Settings
    from recdistill.teachers.joined import Joined
    from recdistill.teachers.stored import Elsewhere, Stored

__all__ = ["Learn", "from_files", "joined_members"]


class Learn(Protocol):
    """Trains one member, or reads its checkpoint where it is finished."""

    def __call__(self, name: str, model: str, settings: Settings, training: TrainSettings) -> Trained:
        """The trained model `model`, kept under `name`."""
        ...


def from_files(source: Source, split: Split, *, who: str, say: Callable[[str], object]) -> Stored | Joined | Trajectory:
    """What another system wrote, as a teacher of the run's log.

    Args:
        source: its table.
        split: of the run's log.
        who: how what is said calls it: "the teacher".
        say: told how much of the log it knows, and whether it was trained on the test part.

    Raises:
        DataError: a file cannot be used, or shares no user or no item with the log.
    """
    train, theirs = split.train, elsewhere(source)

    def matched(each: Elsewhere) -> Stored | Joined:
        return each.matched(users=train.users, items=train.items, seen=train.csr())

    if isinstance(theirs, Steps):
        steps = [matched(step) for step in theirs.steps]
        for at, each in enumerate(steps, 1):
            say(f"{who[0].upper()}{who[1:]} at step {at} of {len(steps)}: {each.coverage}")
        found = Trajectory(steps)
    else:
        found = matched(theirs)
        say(str(found.coverage) if who == "the teacher" else f"{who[0].upper()}{who[1:]}: {found.coverage}")
    for warning in leaks(who, theirs, split.test):
        say(warning)
    return found


def joined_members(
    teacher: Teacher,
    plans: Sequence[tuple[Settings | None, TrainSettings]],
    split: Split,
    *,
    say: Callable[[str], object],
    learn: Learn,
) -> Ensemble:
    """The ensemble of a run file.

    Args:
        teacher: its table.
        plans: of each member its model's settings, None where it comes from files, and how it is trained.
        split: of the run's log.
        say: told how much of the log each member from files knows, and whether one was trained on the test part.
        learn: trains a member.

    Raises:
        UsageError: a member cannot give what the others are combined by.
        RecdistillError: a file cannot be used, or a model not be trained.
    """
    train = split.train
    members: list[Knows] = []
    for at, (each, (settings, training)) in enumerate(zip(teacher.members, plans, strict=True), 1):
        if each.model is not None and settings is not None:
            trained = learn(f"teacher-{at}", each.model, settings, training)
            members.append(Live(trained.model, seen=train.csr()))
            continue
        members.append(from_files(each, split, who=f"member {at} of the teacher", say=say))
    weights = [each.weight for each in teacher.members]
    return Ensemble(members, n_users=train.n_users, weights=weights, **teacher.combine.model_dump())
