"""The lessons of a run: one teacher on one split, students that learn from it, and what each of them depends on.

A lesson is named by a digest of all that its result depends on; its checkpoint lets a run that is killed go on.

    log/<name>.jsonl    every epoch: loss terms, validation metrics
    work/               checkpoints, the sampled candidates, finished measurements
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from recdistill.data.candidates import Candidates, draw
from recdistill.data.split import split
from recdistill.errors import UsageError, problem
from recdistill.recipes.cells import Cells
from recdistill.recipes.members import from_files, joined_members
from recdistill.recipes.train import distill, fit
from recdistill.training.watch import JsonLines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.data.interactions import Interactions, Split
    from recdistill.knowledge.view import Knows
    from recdistill.recipes.listener import Listener
    from recdistill.recipes.runfile import Data, Evaluate, Output, Teacher, Train
    from recdistill.recipes.train import TrainSettings
    from recdistill.recipes.trained import Trained
    from recdistill.settings import Settings
    from recdistill.teachers.ensemble import Ensemble
    from recdistill.teachers.joined import Joined
    from recdistill.teachers.stored import Stored
    from recdistill.teachers.trajectory import Trajectory

__all__ = ["Asked", "Lesson", "Lessons", "Planned"]


class Asked(Protocol):
    """What a bench reads of a run file."""

    @property
    def data(self) -> Data:
        """[data]: the log and how it is divided."""
        ...

    @property
    def teacher(self) -> Teacher:
        """[teacher]: a model to train, files or members."""
        ...

    @property
    def train(self) -> Train:
        """[train]: how both are trained."""
        ...

    @property
    def evaluate(self) -> Evaluate:
        """[evaluate]: what is measured."""
        ...

    @property
    def output(self) -> Output:
        """[output]: where everything is written."""
        ...


class Planned(Protocol):
    """What a bench reads of a plan."""

    @property
    def teacher(self) -> Settings | None:
        """The teacher model's; None when it comes from files or members, or there is none."""
        ...

    @property
    def teacher_train(self) -> TrainSettings:
        """How the teacher is trained."""
        ...

    @property
    def members(self) -> Sequence[tuple[Settings | None, TrainSettings]]:
        """Of each member its model's settings, None where it comes from files, and how it is trained."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Lesson:
    """One student and how it is taught; nothing is trained before it is asked for."""

    bench: Lessons
    name: str
    """Of the row, the bundle and the log."""
    model: str
    settings: Mapping[str, Any]
    """All of the model's."""
    method: str
    how: Mapping[str, Any]
    """All of the method's settings."""
    training: TrainSettings
    code: str | None = None
    """Of the method, where the result is to be made again when that changes (`methods.source`)."""

    @cached_property
    def about(self) -> dict[str, Any]:
        """All that the trained student depends on.

        Raises:
            UsageError: the method needs a teacher, and the run has none.
        """
        bench = self.bench
        about = bench.about(self.model, dict(self.settings), self.training)
        about |= {"method": {"name": self.method, **self.how}}
        if self.code is not None:
            about |= {"code": self.code}
        if self.method == "plain":
            return about
        if not bench.run.teacher.given:
            remedy = "Give the run file a [teacher], or ask for 'plain' alone"
            raise UsageError(problem(f"The method {self.method!r} needs a teacher", remedy=remedy))
        return about | {"teacher": bench.about_teacher}

    @property
    def checkpoint(self) -> Path:
        """Where it is kept while it is trained, and after."""
        return self.bench.cells.path(self.bench.label(self.name), self.about, ".safetensors")

    @cached_property
    def trained(self) -> Trained:
        """The student: trained, gone on with, or read from its checkpoint."""
        return distill(
            None if self.method == "plain" else self.bench.knows,
            self.model,
            self.bench.split.train,
            method=self.method,
            settings=self.how,
            model_settings=self.settings,
            training=self.training,
            **self.bench.common(self.name, self.about, self.training.protocol),
        )


@dataclass(frozen=True)
class Lessons:
    """One teacher on one split, and whoever learns from it; work begins when something is asked for."""

    run: Asked
    plan: Planned
    log: Interactions
    """The whole log, filtered."""
    listener: Listener
    seed: int

    def at(self, seed: int) -> Self:
        """The same with another seed: the split and the candidates, which do not depend on it, are shared."""
        other = replace(self, seed=seed)
        shared = {"split": self.split, "cells": self.cells, "data_digest": self.data_digest, "_drawn": self._drawn}
        vars(other).update(shared)  # as `cached_property` keeps them
        return other

    @cached_property
    def split(self) -> Split:
        """Train, valid and test."""
        data = self.run.data
        parts = split(self.log, data.split, seed=data.seed, valid=data.valid, test=data.test)
        for note in parts.notes:
            self.listener.say(note)
        return parts

    @cached_property
    def cells(self) -> Cells:
        """Where finished measurements lie."""
        return Cells(self.run.output.dir / "work")

    # what a teacher is

    @cached_property
    def trained_teacher(self) -> Trained:
        """The teacher of the run file's model: trained, gone on with, or read from its checkpoint."""
        assert self.run.teacher.model is not None  # noqa: S101 - asked only then
        assert self.plan.teacher is not None  # noqa: S101
        return fit(
            self.run.teacher.model,
            self.split.train,
            settings=self.plan.teacher.model_dump(mode="json"),
            training=self.plan.teacher_train,
            **self.common("teacher", self.about_teacher, self.plan.teacher_train.protocol),
        )

    @property
    def knows(self) -> Trained | Knows:
        """Who is asked: the teacher trained here, or what files and members know."""
        return self.foreign if self.plan.teacher is None else self.trained_teacher

    @cached_property
    def foreign(self) -> Stored | Joined | Ensemble | Trajectory:
        """What the teacher's files hold, or its members together."""
        teacher, say = self.run.teacher, self.listener.say
        if teacher.members:
            return joined_members(teacher, self.plan.members, self.split, say=say, learn=self._member)
        return from_files(teacher, self.split, who="the teacher", say=say)

    def _member(self, name: str, model: str, settings: Settings, training: TrainSettings) -> Trained:
        shown = settings.model_dump(mode="json")
        common = self.common(name, self.about(model, shown, training), training.protocol)
        return fit(model, self.split.train, settings=shown, training=training, **common)

    @cached_property
    def about_teacher(self) -> dict[str, Any]:
        """All that the teacher depends on."""
        if self.plan.teacher is None:
            return {"data": self.data_digest, "files": self.foreign.fingerprint}
        assert self.run.teacher.model is not None  # noqa: S101
        return self.about(self.run.teacher.model, self.plan.teacher.model_dump(mode="json"), self.plan.teacher_train)

    def about(self, model: str, settings: dict[str, Any], training: TrainSettings) -> dict[str, Any]:
        """All that a trained model depends on."""
        candidates = self.candidates(training.protocol)
        return {
            "data": self.data_digest,
            "model": {"name": model, **settings},
            "train": training.model_dump(mode="json"),
            "seed": self.seed,
            "candidates": None if candidates is None else candidates.digest,
        }

    def common(self, name: str, about: dict[str, Any], protocol: str, *, stage: str = "") -> dict[str, Any]:
        """What every training is given: validation data, candidates, seed, checkpoint, and who follows it."""
        self.listener.begin(stage or f"Training {name}")
        return {
            "valid": self.split.valid if len(self.split.valid.queries) else None,
            "candidates": self.candidates(protocol),
            "seed": self.seed,
            "checkpoint": self.cells.path(self.label(name), about, ".safetensors"),
            "watch": [
                *self.listener.watch(name),
                JsonLines(self.run.output.dir / "log" / f"{self.label(name)}.jsonl"),
            ],
            "echo": self.listener.say,
        }

    def label(self, name: str) -> str:
        """With the seed, where it is not the run's own."""
        return name if self.seed == self.run.train.seed else f"{name}-seed{self.seed}"

    @cached_property
    def data_digest(self) -> str:
        """Of the split: who has what in which part, and in which order."""
        found = hashlib.blake2b(digest_size=16)
        parts: list[NDArray[Any]] = [self.split.train.user, self.split.train.item, self.split.train.histories().items]
        for held in (self.split.valid, self.split.test):
            parts += [held.targets.indptr, held.targets.indices, held.seen.indptr, held.seen.indices]
        for part in parts:
            found.update(np.ascontiguousarray(part).tobytes())
        return found.hexdigest()

    def candidates(self, protocol: str) -> Candidates | None:
        """The sampled items of a protocol, drawn once and kept."""
        if protocol == "full":
            return None
        n, seed = int(protocol.removeprefix("sampled(").removesuffix(")")), self.run.evaluate.seed
        path = self.cells.path(f"candidates-{n}", [self.data_digest, n, seed], ".npz")
        if path not in self._drawn:
            if not path.exists():
                draw(self.split, n, seed=seed).save(path)
            self._drawn[path] = Candidates.load(path)
        return self._drawn[path]

    @cached_property
    def _drawn(self) -> dict[Path, Candidates]:
        return {}
