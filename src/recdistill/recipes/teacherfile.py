"""[teacher] of a run file: a model to train, what another system wrote, several moments of one, or several as one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from recdistill.errors import DataError, SettingsError, problem
from recdistill.settings import Settings

if TYPE_CHECKING:
    from recdistill.knowledge.view import Kind
    from recdistill.teachers.stored import Elsewhere
    from recdistill.teachers.trajectory import Steps

__all__ = ["ELSEWHERE", "Combine", "Member", "Source", "Teacher", "check_kinds", "elsewhere", "steps_of"]

ELSEWHERE = "lists, scores, vectors, bundle, recbole, implicit, trajectory"
"""The keys that name what another system wrote."""
OF_RANKS = "The method {method!r} reads scores as logits, and an ensemble by ranks has worths of ranks, all but alike"
BY_SCORES = 'Combine by = "scores"'
_DIGITS = re.compile(r"([0-9]+)")


class Source(Settings):
    """Where one teacher's knowledge is: a model to train, or files. Other keys go to the model."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    """A model to train: "mf", "neumf", "lightgcn", "sasrec", "nextitnet", "bert4rec", "gru4rec"."""
    lists: Path | None = None
    """A file of ranked lists: user_id, item_id, score or rank."""
    scores: Path | None = None
    """A file of scores: user_id, item_id, score."""
    vectors: Path | None = None
    """A file of user and item vectors."""
    bundle: Path | None = None
    """A bundle, as `recdistill distill` writes it."""
    recbole: Path | None = None
    """A checkpoint of RecBole, `saved/BPR-....pth`, with `ids`. Nothing in it is run."""
    implicit: Path | None = None
    """The npz that a model of implicit saved (`model.save`), with `ids`."""
    ids: Path | None = None
    """Who the rows are, with `recbole` and `implicit`: an npz of `users` and `items`, or RecBole's saved data set."""
    trajectory: Path | tuple[Path, ...] | None = None
    """One teacher at several moments, from the first to the last: bundles, or files of ranked lists; or a folder of
    such, whose names are in that order (step-2 before step-10)."""
    train: dict[str, Any] = Field(default_factory=dict[str, Any])
    """[teacher.train]: keys of [train] that differ for the teacher."""

    @property
    def given(self) -> bool:
        """Whether there is anything at all."""
        return self.model is not None or bool(self.kinds)

    @property
    def files(self) -> dict[str, Path]:
        """The files that are given, by kind; several of them are one teacher."""
        kinds = {"lists": self.lists, "scores": self.scores, "vectors": self.vectors, "bundle": self.bundle}
        return {kind: path for kind, path in kinds.items() if path is not None}

    @property
    def kinds(self) -> list[str]:
        """What another system wrote, by the names of the keys."""
        alone = {"recbole": self.recbole, "implicit": self.implicit, "trajectory": self.trajectory}
        return [*self.files, *(kind for kind, given in alone.items() if given is not None)]

    @property
    def vectored(self) -> bool:
        """Whether what another system wrote may hold vectors."""
        return bool({"vectors", "bundle", "recbole", "implicit", "trajectory"} & set(self.kinds))

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        alone = [kind for kind in self.kinds if kind not in self.files]
        if alone and len(self.kinds) > 1:
            msg = f"{' and '.join(self.kinds)} are several teachers: give each as one of [[teacher.members]]"
            raise ValueError(msg)
        needs = [kind for kind in alone if kind in {"recbole", "implicit"}]
        if needs and self.ids is None:
            what = "the data set RecBole saved, or an npz" if needs == ["recbole"] else "an npz"
            msg = f"{needs[0]} holds rows, not ids: ids = ... names {what} of users and items"
            raise ValueError(msg)
        if self.ids is not None and not needs:
            msg = "ids belongs to recbole or implicit; other files hold their own"
            raise ValueError(msg)
        if self.trajectory == ():
            msg = "a trajectory has at least one step"
            raise ValueError(msg)
        return self


class Combine(Settings):
    """[teacher.combine]: how several members are one teacher."""

    by: Literal["ranks", "scores"] = "ranks"
    """What is averaged."""
    worth: Literal["power", "exponential", "reciprocal"] = "reciprocal"
    """By ranks, what rank r is worth: r^-rate, e^(-r / rate), or 1 / (rate + r)."""
    rate: float = Field(default=60.0, gt=0)
    """Of `worth`."""
    normalise: Literal["minmax", "zscore", "none"] = "zscore"
    """By scores, what makes those of members comparable: [0, 1] over a list, mean 0 and deviation 1, or nothing."""
    depth: int = Field(default=500, ge=1)
    """Of the members' lists."""


class Member(Source):
    """[[teacher.members]]: one of several teachers."""

    weight: float = Field(default=1.0, ge=0)
    """How much it counts; weights are made to sum to 1."""

    @model_validator(mode="after")
    def _one_kind(self) -> Member:
        if (self.model is None) == (not self.kinds):
            msg = f'a member is either a model to train (model = "mf") or files ({ELSEWHERE})'
            raise ValueError(msg)
        return self


class Teacher(Source):
    """[teacher]: a model to train, files that hold what a teacher elsewhere knows, or several of either."""

    members: tuple[Member, ...] = ()
    """[[teacher.members]]: several teachers that are one, each a model to train or files."""
    combine: Combine = Combine()
    """[teacher.combine]: how."""

    @property
    def given(self) -> bool:
        """Whether there is a teacher at all."""
        return super().given or bool(self.members)

    @model_validator(mode="after")
    def _one_teacher(self) -> Teacher:
        kinds = [self.model is not None, bool(self.kinds), bool(self.members)]
        if sum(kinds) != 1 and self.model_dump(exclude_defaults=True):  # defaults that were written out are nothing
            msg = (
                f'a teacher is either a model to train (model = "mf"), files ({ELSEWHERE}), or members '
                "([[teacher.members]])"
            )
            raise ValueError(msg)
        if self.combine != Combine() and not self.members:
            msg = "[teacher.combine] says how members are one teacher, and there are none: add [[teacher.members]]"
            raise ValueError(msg)
        return self


def elsewhere(source: Source) -> Elsewhere | Steps:
    """What another system wrote, still to be matched to a training log. Imports torch.

    Raises:
        DataError: a file cannot be used; a folder of steps is none, or empty.
    """
    from recdistill.teachers.archives import read_ids  # noqa: PLC0415
    from recdistill.teachers.importers import teacher  # noqa: PLC0415
    from recdistill.teachers.stored import Files  # noqa: PLC0415
    from recdistill.teachers.trajectory import trajectory  # noqa: PLC0415

    if source.trajectory is not None:
        steps = steps_of(source.trajectory)
        return trajectory(*(teacher(bundle=each) if each.is_dir() else teacher(lists=each) for each in steps))
    if source.implicit is not None and source.ids is not None:
        users, items = read_ids(source.ids)
        return teacher(implicit=source.implicit, users=users, items=items)
    if source.recbole is not None:
        return teacher(recbole=source.recbole, ids=source.ids)
    return Files.of(source.files)


def steps_of(trajectory: Path | tuple[Path, ...]) -> list[Path]:
    """The bundles and lists of a trajectory, from the first to the last.

    Raises:
        DataError: there is no such folder, it is a bundle itself, or nothing is in it.
    """
    if isinstance(trajectory, tuple):
        return list(trajectory)
    remedy = 'Or name the steps: trajectory = ["runs/20/bundles/teacher", "runs/200/bundles/teacher"]'
    if not trajectory.is_dir() or (trajectory / "manifest.json").exists():
        raise DataError(problem(f"{trajectory} is no folder of steps", remedy=remedy))
    steps = [path for path in trajectory.iterdir() if not path.name.startswith((".", "_"))]
    if not steps:
        raise DataError(problem(f"There is no step in {trajectory}", remedy=remedy))
    return sorted(steps, key=lambda path: [int(part) if part.isdigit() else part for part in _DIGITS.split(path.name)])


def check_kinds(teacher: Teacher, method: str, asks: frozenset[Kind]) -> None:
    """Refuse, before a long log is read, what files of such kinds never hold.

    Raises:
        SettingsError: the method asks for it.
    """
    from recdistill.knowledge.view import GIVES, Kind  # noqa: PLC0415
    from recdistill.methods.base import served_by  # noqa: PLC0415

    if teacher.model is not None or not teacher.given:
        return
    can = {Kind.RANKS, Kind.SCORES}  # lists may have a column of scores
    if teacher.members and teacher.combine.by == "ranks":
        can.remove(Kind.SCORES)
        if asks - can == frozenset({Kind.SCORES}):
            others = ", ".join(served_by(frozenset(can)))
            remedy = f"{BY_SCORES} in [teacher.combine], or choose a method that ranks can serve: {others}"
            raise SettingsError(problem(OF_RANKS.format(method=method), remedy=remedy))
    if not teacher.members and teacher.vectored:
        can.add(Kind.VECTORS)
    if lacking := sorted(asks - can):
        what = "The members of an ensemble together" if teacher.members else f"[teacher] {' and '.join(teacher.kinds)}"
        allowed = "; ".join(f"{kind} come from {GIVES[kind]}" for kind in lacking)
        remedy = f"Or choose a method that such a teacher can serve: {', '.join(served_by(frozenset(can)))}"
        what = f"{what} cannot give {' and '.join(lacking)}, which the method {method!r} asks for"
        raise SettingsError(problem(what, allowed=allowed, remedy=remedy))
