"""The bench of a run: one teacher and its students on one split: trained, measured, saved, each once.

Everything that is finished lies under the run's folder, named by a digest of all it depends on, and appears by atomic
rename; so a run that is killed at any moment goes on where it was, and what is finished is not done again.

    bundles/<name>/     what is shipped
    log/<name>.jsonl    every epoch: loss terms, validation metrics
    work/               checkpoints, finished measurements, the sampled candidates
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill import bundle
from recdistill.errors import BundleError
from recdistill.evaluation.card import Card, bytes_on_disk
from recdistill.evaluation.evaluate import Evaluation, evaluate
from recdistill.evaluation.latency import measure
from recdistill.knowledge.view import Kind
from recdistill.recipes.cells import digest
from recdistill.recipes.compare import System, card
from recdistill.recipes.known import KnownRanker
from recdistill.recipes.lessons import Lessons
from recdistill.recipes.measure import as_seen_by
from recdistill.report.page import Curve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from recdistill.data.interactions import HeldOut
    from recdistill.recipes.lessons import Lesson
    from recdistill.recipes.trained import Trained
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


@dataclass(frozen=True)
class Bench(Lessons):
    """One teacher on one split, and whatever is measured beside it; work begins when something is asked for."""

    def teacher(self) -> Result | None:
        """The teacher, measured; None where there is none, or its files cannot answer what is measured."""
        if not self.run.teacher.given:
            return None
        if self.plan.teacher is not None:
            return self._result("teacher", self.about_teacher, lambda: self.trained_teacher, None)
        if self.run.evaluate.protocol != "full" and Kind.SCORES not in self.foreign.provides:
            self.listener.say("The teacher's files hold no scores, so the sampled protocol cannot be asked of it.")
            return None
        return self._measured(self._teacher_system, self.about_teacher, None, None)

    def learned(self, lesson: Lesson) -> Result:
        """A student, trained and measured."""
        self._students[lesson.name] = lesson
        teacher = self.about_teacher if self.run.teacher.given else None
        return self._result(lesson.name, lesson.about, lambda: lesson.trained, teacher)

    def has(self, lesson: Lesson) -> bool:
        """Whether a student is measured, and its bundle is there."""
        teacher = self.about_teacher if self.run.teacher.given else None
        label, about = self.label(lesson.name), lesson.about
        path = self.run.output.dir / "bundles" / label
        return self.cells.has(label, self._asked(about, teacher)) and _is_bundle_of(path, digest(about))

    @cached_property
    def _students(self) -> dict[str, Lesson]:
        """By name; a student that is finished is read from its checkpoint."""
        return {}

    # measuring

    def _result(
        self, name: str, about: dict[str, Any], train: Callable[[], Trained], teacher: dict[str, Any] | None
    ) -> Result:
        whole, label = self._asked(about, teacher), self.label(name)
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
                lineage={"run": digest(about), "data": self.data_digest, "seen": _SEEN},
                metrics={f"{test.name} {metric}": mean for metric, mean in test.means.items()},
                overwrite=True,
            )
            system = replace(system, bytes=bytes_on_disk(path))
            return self._measured(system, about, teacher, curve(trained.report), (valid, test))

    def _asked(self, about: dict[str, Any], teacher: dict[str, Any] | None) -> dict[str, Any]:
        candidates = self.candidates(self.run.evaluate.protocol)
        return {
            "run": about,
            "teacher": teacher,
            "evaluate": self.run.evaluate.model_dump(mode="json", exclude_none=True),
            "candidates": None if candidates is None else candidates.digest,
        }

    def _evaluate(self, system: System) -> tuple[Evaluation, Evaluation]:
        asked = self.run.evaluate

        def on(held: HeldOut) -> Evaluation:
            candidates = self.candidates(asked.protocol)
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
        whole, label = self._asked(about, teacher), self.label(system.name)
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
            return System.of("teacher", self.trained_teacher)
        train = self.split.train
        ranker = KnownRanker(self.foreign, n_users=train.n_users, n_items=train.n_items)
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
