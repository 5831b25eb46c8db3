"""[[teacher.members]] of a run file: several teachers, trained or read, as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from recdistill.recipes.leaks import leaks
from recdistill.teachers.ensemble import Ensemble
from recdistill.teachers.live import Live
from recdistill.teachers.stored import Files, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from recdistill.data.interactions import Split
    from recdistill.knowledge.view import Knows
    from recdistill.recipes.runfile import Teacher
    from recdistill.recipes.train import TrainSettings
    from recdistill.recipes.trained import Trained
    from recdistill.settings import Settings
    from recdistill.teachers.joined import Joined
    from recdistill.teachers.stored import Stored

__all__ = ["Learn", "from_files", "joined_members"]


class Learn(Protocol):
    """Trains one member, or reads its checkpoint where it is finished."""

    def __call__(self, name: str, model: str, settings: Settings, training: TrainSettings) -> Trained:
        """The trained model `model`, kept under `name`."""
        ...


def from_files(files: dict[str, Path], split: Split, *, who: str, say: Callable[[str], object]) -> Stored | Joined:
    """A teacher from files; `say` is told how much of the log it knows, and whether it was trained on the test part."""
    train = split.train
    found = stored(**files, users=train.users, items=train.items, seen=train.csr())
    say(str(found.coverage) if who == "the teacher" else f"{who[0].upper()}{who[1:]}: {found.coverage}")
    for warning in leaks(who, Files(files), split.test):
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
        members.append(from_files(each.files, split, who=f"member {at} of the teacher", say=say))
    weights = [each.weight for each in teacher.members]
    return Ensemble(members, n_users=train.n_users, weights=weights, **teacher.combine.model_dump())
