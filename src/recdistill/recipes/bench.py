"""The bench of a run: one teacher and its students on one split: trained, measured, saved, each once.

Everything that is finished lies under the run's folder, named by a digest of all it depends on, and appears by atomic
rename; so a run that is killed at any moment goes on where it was, and what is finished is not done again.

    bundles/<name>/     what is shipped
    log/<name>.jsonl    every epoch: loss terms, validation metrics
    work/               checkpoints, finished measurements, the sampled candidates
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from recdistill import bundle
from recdistill.data.candidates import Candidates, draw
from recdistill.data.split import split
from recdistill.errors import BundleError, UsageError, problem
from recdistill.evaluation.card import Card, bytes_on_disk
from recdistill.evaluation.evaluate import Evaluation, evaluate
from recdistill.evaluation.latency import measure
from recdistill.knowledge.view import Kind
from recdistill.recipes.cells import Cells, digest
from recdistill.recipes.compare import System, card
from recdistill.recipes.known import KnownRanker
from recdistill.recipes.measure import as_seen_by
from recdistill.recipes.members import from_files, joined_members
from recdistill.recipes.train import distill, fit
from recdistill.report.page import Curve
from recdistill.training.watch import JsonLines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.data.interactions import HeldOut, Interactions, Split
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
    from recdistill.training.watch import Report

__all__ = ["Bench", "Result", "curve"]

_SEEN = "train, valid and test"
"""What a bundle that is shipped does not recommend again: all that its users have."""
_TIMED = 1.0  # seconds for single answers, and again for tables


@dataclass(frozen=True, eq=False)
class Result:
    """One finished system."""

    card: Card
    valid: Evaluation
    test: Evaluation
    curve: Curve | None


class Asked(Protocol):
    """What a bench reads of a run file."""

    @property
    def data(self) -> Data: ...
    @property
    def teacher(self) -> Teacher: ...
    @property
    def train(self) -> Train: ...
    @property
    def evaluate(self) -> Evaluate: ...
    @property
    def output(self) -> Output: ...


class Planned(Protocol):
    """What a bench reads of a plan."""

    @property
    def teacher(self) -> Settings | None: ...
    @property
    def teacher_train(self) -> TrainSettings: ...
    @property
    def members(self) -> Sequence[tuple[Settings | None, TrainSettings]]: ...


@dataclass(frozen=True)
class Bench:
    """One teacher on one split, and whatever is measured beside it; work begins when something is asked for."""

    run: Asked
    plan: Planned
    log: Interactions
    """The whole log, filtered."""
    listener: Listener
    seed: int

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

    def teacher(self) -> Result | None:
        """The teacher, measured; None where there is none, or its files cannot answer what is measured."""
        if not self.run.teacher.given:
            return None
        if self.plan.teacher is not None:
            return self._result("teacher", self._about_teacher, lambda: self._trained_teacher, None)
        if self.run.evaluate.protocol != "full" and Kind.SCORES not in self._foreign.provides:
            self.listener.say("The teacher's files hold no scores, so the sampled protocol cannot be asked of it.")
            return None
        return self._measured(self._teacher_system, self._about_teacher, None, None)

    # what a teacher is

    @cached_property
    def _trained_teacher(self) -> Trained:
        assert self.run.teacher.model is not None  # noqa: S101 - asked only then
        assert self.plan.teacher is not None  # noqa: S101
        return fit(
            self.run.teacher.model,
            self.split.train,
            settings=self.plan.teacher.model_dump(mode="json"),
            training=self.plan.teacher_train,
            **self._common("teacher", self._about_teacher, self.plan.teacher_train.protocol),
        )

    @property
    def _knows(self) -> Trained | Knows:
        return self._foreign if self.plan.teacher is None else self._trained_teacher

    @cached_property
    def _foreign(self) -> Stored | Joined | Ensemble | Trajectory:
        teacher, say = self.run.teacher, self.listener.say
        if teacher.members:
            return joined_members(teacher, self.plan.members, self.split, say=say, learn=self._member)
        return from_files(teacher, self.split, who="the teacher", say=say)

    def _member(self, name: str, model: str, settings: Settings, training: TrainSettings) -> Trained:
        shown = settings.model_dump(mode="json")
        common = self._common(name, self._about(model, shown, training), training.protocol)
        return fit(model, self.split.train, settings=shown, training=training, **common)

    @cached_property
    def _about_teacher(self) -> dict[str, Any]:
        if self.plan.teacher is None:
            return {"data": self._data_digest, "files": self._foreign.fingerprint}
        assert self.run.teacher.model is not None  # noqa: S101
        return self._about(self.run.teacher.model, self.plan.teacher.model_dump(mode="json"), self.plan.teacher_train)

    # training

    def _student(
        self,
        name: str,
        model: str,
        settings: Mapping[str, Any],
        *,
        method: str,
        how: Mapping[str, Any],
        training: TrainSettings,
    ) -> Result:
        """A student, trained and measured.

        Args:
            name: of the row, the bundle and the log.
            model: a registered model.
            settings: all of the model's.
            method: a registered method.
            how: all of the method's settings.
            training: how it is trained.
        """
        about = self._about(model, dict(settings), training) | {"method": {"name": method, **how}}
        if method != "plain":
            if not self.run.teacher.given:
                remedy = "Give the run file a [teacher], or ask for 'plain' alone"
                raise UsageError(problem(f"The method {method!r} needs a teacher", remedy=remedy))
            about |= {"teacher": self._about_teacher}

        @cache
        def train() -> Trained:
            return distill(
                None if method == "plain" else self._knows,
                model,
                self.split.train,
                method=method,
                settings=how,
                model_settings=settings,
                training=training,
                **self._common(name, about, training.protocol),
            )

        self._students[name] = train
        return self._result(name, about, train, self._about_teacher if self.run.teacher.given else None)

    @cached_property
    def _students(self) -> dict[str, Callable[[], Trained]]:
        """Each student's training, which is read from its checkpoint where it is finished."""
        return {}

    def _about(self, model: str, settings: dict[str, Any], training: TrainSettings) -> dict[str, Any]:
        """All that a trained model depends on."""
        candidates = self._candidates(training.protocol)
        return {
            "data": self._data_digest,
            "model": {"name": model, **settings},
            "train": training.model_dump(mode="json"),
            "seed": self.seed,
            "candidates": None if candidates is None else candidates.digest,
        }

    def _common(self, name: str, about: dict[str, Any], protocol: str, *, stage: str = "") -> dict[str, Any]:
        self.listener.begin(stage or f"Training {name}")
        return {
            "valid": self.split.valid if len(self.split.valid.queries) else None,
            "candidates": self._candidates(protocol),
            "seed": self.seed,
            "checkpoint": self.cells.path(self._label(name), about, ".safetensors"),
            "watch": [
                *self.listener.watch(name),
                JsonLines(self.run.output.dir / "log" / f"{self._label(name)}.jsonl"),
            ],
            "echo": self.listener.say,
        }

    def _label(self, name: str) -> str:
        """With the seed, where it is not the run's own."""
        return name if self.seed == self.run.train.seed else f"{name}-seed{self.seed}"

    @cached_property
    def _data_digest(self) -> str:
        found = hashlib.blake2b(digest_size=16)
        parts: list[NDArray[Any]] = [self.split.train.user, self.split.train.item, self.split.train.histories().items]
        for held in (self.split.valid, self.split.test):
            parts += [held.targets.indptr, held.targets.indices, held.seen.indptr, held.seen.indices]
        for part in parts:
            found.update(np.ascontiguousarray(part).tobytes())
        return found.hexdigest()

    def _candidates(self, protocol: str) -> Candidates | None:
        """The sampled items of a protocol, drawn once and kept."""
        if protocol == "full":
            return None
        n, seed = int(protocol.removeprefix("sampled(").removesuffix(")")), self.run.evaluate.seed
        path = self.cells.path(f"candidates-{n}", [self._data_digest, n, seed], ".npz")
        if path not in self._drawn:
            if not path.exists():
                draw(self.split, n, seed=seed).save(path)
            self._drawn[path] = Candidates.load(path)
        return self._drawn[path]

    @cached_property
    def _drawn(self) -> dict[Path, Candidates]:
        return {}

    # measuring

    def _result(
        self, name: str, about: dict[str, Any], train: Callable[[], Trained], teacher: dict[str, Any] | None
    ) -> Result:
        whole, label = self._asked(about, teacher), self._label(name)
        path = self.run.output.dir / "bundles" / label
        with self.cells.claim(label, whole, wait=True):  # a second process waits, and then reads
            done = self.cells.get(label, whole)
            if done is not None and _is_bundle_of(path, digest(about)):
                return _from_cell(done)
            trained = train()
            system = System.of(name, trained)
            valid, test = self._evaluate(system)
            path.parent.mkdir(parents=True, exist_ok=True)
            trained.save(
                path,
                seen=self.log,
                lineage={"run": digest(about), "data": self._data_digest, "seen": _SEEN},
                metrics={f"{test.name} {metric}": mean for metric, mean in test.means.items()},
                overwrite=True,
            )
            system = replace(system, bytes=bytes_on_disk(path))
            return self._measured(system, about, teacher, curve(trained.report), (valid, test))

    def _asked(self, about: dict[str, Any], teacher: dict[str, Any] | None) -> dict[str, Any]:
        candidates = self._candidates(self.run.evaluate.protocol)
        return {
            "run": about,
            "teacher": teacher,
            "evaluate": self.run.evaluate.model_dump(mode="json", exclude_none=True),
            "candidates": None if candidates is None else candidates.digest,
        }

    def _evaluate(self, system: System) -> tuple[Evaluation, Evaluation]:
        asked = self.run.evaluate

        def on(held: HeldOut) -> Evaluation:
            candidates = self._candidates(asked.protocol)
            part, how = as_seen_by(asked.like, held, self.split.valid), asked.protocol
            return evaluate(system.ranker, part, asked.metrics, protocol=how, candidates=candidates, like=asked.like)

        test = on(self.split.test)
        return (on(self.split.valid) if len(self.split.valid.queries) else test), test

    def _measured(
        self,
        system: System,
        about: dict[str, Any],
        teacher: dict[str, Any] | None,
        curve: Curve | None,
        found: tuple[Evaluation, Evaluation] | None = None,
    ) -> Result:
        whole, label = self._asked(about, teacher), self._label(system.name)
        if found is None and (done := self.cells.get(label, whole)) is not None:
            return _from_cell(done)
        valid, test = found or self._evaluate(system)
        held, against = self.split.test, None
        if teacher is not None and (theirs := self.teacher()) is not None:
            against = (self._teacher_system, theirs.test)
        timed = self.run.evaluate.latency and system.timed
        made = card(
            system,
            [valid, test],
            teacher=against,
            held=held,
            latency=measure(system.ranker, users=held.queries, exclude=held.seen, seconds=_TIMED) if timed else None,
            seed=self.seed,
        )
        cell = {
            "card": made.to_json(),  # as text, which keeps the order of metrics and terms
            "valid": valid.to_json(),
            "test": test.to_json(),
            "curve": json.dumps(None if curve is None else asdict(curve)),
        }
        self.cells.put(label, whole, cell)
        return Result(made, valid, test, curve)

    @cached_property
    def _teacher_system(self) -> System:
        if self.plan.teacher is not None:
            return System.of("teacher", self._trained_teacher)
        train = self.split.train
        ranker = KnownRanker(self._foreign, n_users=train.n_users, n_items=train.n_items)
        named = [each.model or ", ".join(each.kinds) for each in self.run.teacher.members]
        return System("teacher", ranker, model=" + ".join(named) or ", ".join(self.run.teacher.kinds), timed=False)


def curve(report: Report) -> Curve:
    """What a page draws of a run."""
    history = report.history
    checked = [record for record in history if record.metrics]
    return Curve(
        epochs=[record.epoch + 1 for record in history],
        seconds=np.cumsum([record.seconds for record in history]).tolist(),
        losses={
            name: [record.losses.get(name, 0.0) for record in history]
            for name in (history[0].losses if history else ())
        },
        checked=[record.epoch + 1 for record in checked],
        metrics={name: [r.metrics[name] for r in checked] for name in (checked[0].metrics if checked else ())},
        best={name: best.epoch + 1 for name, best in report.best.items()},
    )


def _is_bundle_of(path: Path, run: str) -> bool:
    """Whether the bundle of this very run is already there."""
    if not (path / "manifest.json").exists():
        return False
    try:
        lineage = bundle.verify(path).lineage
        return lineage.get("run") == run and lineage.get("seen") == _SEEN  # earlier versions left out train alone
    except BundleError:
        return False


def _from_cell(cell: dict[str, Any]) -> Result:
    return Result(
        Card.from_json(cell["card"]),
        Evaluation.from_json(cell["valid"]),
        Evaluation.from_json(cell["test"]),
        None if (curve := json.loads(cell["curve"])) is None else Curve(**curve),
    )
