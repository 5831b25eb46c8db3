"""Methods x students x seeds on one split: what there is to do, each piece once, whoever does it.

A piece is the teacher of a seed, the trials of a method, or a student; its result is a cell under the run's folder,
named by all that it depends on, the code of its method included. So a changed method is done again alone, a killed
comparison goes on, and several processes share the work (`recipes.labour`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from recdistill import bundle
from recdistill.errors import TrainingError, UsageError, problem
from recdistill.evaluation.evaluate import Evaluation, evaluate
from recdistill.evaluation.latency import Latency, measure
from recdistill.evaluation.ranking import following, ranker
from recdistill.evaluation.segments import Segment, item_segments, targets_within, user_segments
from recdistill.methods.source import code_of
from recdistill.models import MODELS
from recdistill.recipes.labour import Task
from recdistill.recipes.lessons import Lesson
from recdistill.recipes.study import Study
from recdistill.recipes.trials import Search
from recdistill.settings import parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from recdistill.evaluation.ranking import Ranker
    from recdistill.recipes.bench import Result
    from recdistill.recipes.runfile import Plan, RunSettings
    from recdistill.recipes.trials import Tuned
    from recdistill.settings import Settings

__all__ = ["Contest", "Entrant", "Finished", "Pupil", "Terms", "pupils", "tasks"]

_TIMED = 1.0  # seconds for single answers, and again for tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is compared with what."""

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    sizes: tuple[int, ...] = ()
    """Dims of the students; the run file's student where there are none."""
    trials: int = 8
    """Of each method; 0 takes the settings of the run file and the defaults."""
    tune_each: bool = False
    """Tune every size and seed, rather than each model's first size at the first seed."""


@dataclass(frozen=True, slots=True)
class Pupil:
    """A student to be: a model at a size."""

    at: int
    """0 for [student] of the run file, then [[students]] in their order."""
    label: str
    """What tells its rows from others: "", "20", "lightgcn 20"."""
    tag: str
    """In file names: "mf20"."""
    model: str
    settings: Mapping[str, Any] = field(compare=False)
    """All of the model's, at the size."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """A method for a student."""

    method: str
    pupil: Pupil

    @property
    def name(self) -> str:
        """Of the row: "rrd", "rrd 20", or "rrd lightgcn 20"."""
        return f"{self.method} {self.pupil.label}".rstrip()


@dataclass(frozen=True, eq=False)
class Finished:
    """A system at one seed."""

    result: Result | None
    """None where training failed."""
    segments: dict[str, Evaluation]
    """The test with the targets of one segment of items alone, by its name."""
    failed: str | None = None


@dataclass(frozen=True)
class Contest(Study):
    """One seed's part of a comparison."""

    terms: Terms

    @property
    def entrants(self) -> tuple[Entrant, ...]:
        """In the order of the table."""
        return tuple(Entrant(method, pupil) for pupil in self.pupils for method in self.terms.methods)

    @cached_property
    def pupils(self) -> tuple[Pupil, ...]:
        """Every student at every size."""
        return tuple(pupils(self.run, self.plan, self.terms.sizes))

    def lesson(self, entrant: Entrant) -> Lesson | None:
        """How a student is taught; None where its settings are not tuned yet."""
        how, training = self.how(entrant.method).model_dump(mode="json"), self.plan.train
        tag = f"{entrant.method}-{entrant.pupil.tag}"
        if self.terms.trials:
            found = self.tuned(entrant)
            if found is None:
                return None
            how, training, tag = dict(found.how), found.training, f"{tag}-tuned"
        return Lesson(
            bench=self,
            name=tag,
            model=entrant.pupil.model,
            settings=entrant.pupil.settings,
            method=entrant.method,
            how=how,
            training=training,
            code=code_of(entrant.method, *how.get("parts", ())),
        )

    def tuned(self, entrant: Entrant) -> Tuned | None:
        """The trials whose winner an entrant takes; None where they are not finished."""
        search = self._search(entrant)
        if search not in self._tuned:
            found = search.found()
            if found is None:
                return None
            self._tuned[search] = found
        return self._tuned[search]

    def search(self, entrant: Entrant) -> Search:
        """The trials whose winner an entrant takes: its own, or those of the first size and seed."""
        return self._search(entrant)

    def teach(self) -> None:
        """Train and measure the teacher."""
        theirs = self.teacher()
        segments = {} if theirs is None else self._segmented(self._teacher_system.ranker)
        self.cells.put(self._rows(None), self._about_row(None), {"failed": None, "segments": segments})

    def taught(self) -> bool:
        """Whether there is a measured teacher, or none is asked for."""
        return not self.run.teacher.given or self.done(None)

    def done(self, lesson: Lesson | None) -> bool:
        """Whether a student, or the teacher (None), is measured."""
        return self.cells.has(self._rows(lesson), self._about_row(lesson))

    def learn(self, entrant: Entrant) -> None:
        """Train and measure a student; one that fails is a result too."""
        lesson = self.lesson(entrant)
        assert lesson is not None  # noqa: S101 - it was ready
        row: dict[str, Any] = {"failed": None, "segments": {}}
        try:
            self.learned(lesson)
            row["segments"] = self._segmented(lesson.trained.ranker())
        except TrainingError as error:
            row["failed"] = str(error)
        self._students.pop(lesson.name, None)  # many come: their tables are not kept in memory
        self.cells.put(self._rows(lesson), self._about_row(lesson), row)

    def finished(self, entrant: Entrant | None) -> Finished | None:
        """What came of a student, or of the teacher (None); None where it is not there."""
        lesson = None if entrant is None else self.lesson(entrant)
        if entrant is not None and lesson is None:
            return None
        row = self.cells.get(self._rows(lesson), self._about_row(lesson))
        if row is None:
            return None
        if row["failed"] is not None:
            return Finished(None, {}, row["failed"])
        segments = {name: Evaluation.from_json(text) for name, text in row["segments"].items()}
        result = self.teacher() if lesson is None else self.learned(lesson)
        return Finished(result, segments)

    def latency(self, entrant: Entrant | None) -> Latency | None:
        """How fast a system's bundle answers here; None for a teacher that is not ours to serve."""
        lesson = None if entrant is None else self.lesson(entrant)
        if lesson is None and self.plan.teacher is None:
            return None
        name = "teacher" if lesson is None else lesson.name
        about = {"timed": _TIMED, "row": self._about_row(lesson)}
        label = self.label(f"{name}-latency")
        with self.cells.claim(label, about, wait=True):
            done = self.cells.get(label, about)
            if done is None:
                opened = bundle.open(self.run.output.dir / "bundles" / self.label(name))
                held = self.split.test
                of = ranker(opened.manifest.kind, opened.arrays)
                found = measure(of, users=held.queries, exclude=held.seen, seconds=_TIMED)
                done = {field: getattr(found, field) for field in Latency.__dataclass_fields__}
                self.cells.put(label, about, done)
        return Latency(**done)

    @cached_property
    def users(self) -> tuple[Segment, ...]:
        """Cold and warm."""
        return user_segments(self.split.train.csr(), self.split.test.queries)

    @cached_property
    def items(self) -> tuple[Segment, ...]:
        """Head and tail; none under another library's convention, which counts users in its own way."""
        return item_segments(self.split.train.csr()) if self.run.evaluate.like is None else ()

    # helpers

    @cached_property
    def _tuned(self) -> dict[Search, Tuned]:
        return {}

    @cached_property
    def _searches(self) -> dict[Entrant, Search]:
        return {}

    @cached_property
    def _first(self) -> Contest:
        return self if self.seed == self.terms.seeds[0] else self.at(self.terms.seeds[0])

    def _search(self, entrant: Entrant) -> Search:
        each = self.terms.tune_each
        pupil = entrant.pupil if each else next(first for first in self.pupils if first.at == entrant.pupil.at)
        bench, spot = self if each else self._first, Entrant(entrant.method, pupil)
        if spot not in self._searches:
            self._searches[spot] = Search(
                bench=bench,
                model=pupil.model,
                model_settings=pupil.settings,
                method=entrant.method,
                how=self.how(entrant.method),
                training=self.plan.train,
                trials=self.terms.trials,
                name=f"{entrant.method}-{pupil.tag}",
            )
        return self._searches[spot]

    def _rows(self, lesson: Lesson | None) -> str:
        return self.label(f"{'teacher' if lesson is None else lesson.name}-row")

    def _about_row(self, lesson: Lesson | None) -> dict[str, Any]:
        teacher = self.about_teacher if self.run.teacher.given else None
        about = self.about_teacher if lesson is None else lesson.about
        return self._asked(about, teacher) | {"segments": [segment.about for segment in self.items]}

    def _segmented(self, of: Ranker) -> dict[str, str]:
        """The test with the targets of one segment of items alone, as text."""
        asked, found = self.run.evaluate, dict[str, str]()
        for segment in self.items:
            part = targets_within(self.split.test, segment)
            if len(part):
                of_part, candidates = following(of, part), self.candidates(asked.protocol)
                measured = evaluate(of_part, part, asked.metrics, protocol=asked.protocol, candidates=candidates)
                found[segment.name] = measured.to_json()
        return found


def pupils(run: RunSettings, plan: Plan, sizes: Sequence[int]) -> list[Pupil]:
    """Every student of a run file at every size; without sizes at its own.

    Raises:
        UsageError: a model has no sizes, or two students have one name.
        SettingsError: a model cannot be of such a size.
    """
    found: list[Pupil] = []
    for at, (table, plain) in enumerate(zip((run.student, *run.students), (plan.student, *plan.students), strict=True)):
        for size in sizes or (None,):
            settings = _sized(table.model, plain, size, at=f"students.{at - 1}" if at else "student")
            dim = settings.get("dim")
            words = [table.name or table.model] if run.students else []
            words += [str(dim)] if dim is not None and (words or size is not None) else []
            width = "" if dim is None else str(dim)
            tag = f"{table.name}-{width}" if table.name else f"{table.model}{width}"
            found.append(Pupil(at, " ".join(words), tag, table.model, settings))
    labels = [pupil.label for pupil in found]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        remedy = 'Give one of them a name, beside its model: name = "deeper"'
        raise UsageError(problem("Two students of the comparison are called", twice, remedy=remedy))
    return found


def _sized(model: str, of: Settings, size: int | None, *, at: str) -> dict[str, Any]:
    """A model's settings at a width."""
    settings = of.model_dump(mode="json")
    if size is None:
        return settings
    if "dim" not in settings:
        raise UsageError(problem(f"A {model!r} has no 'dim' to take sizes of", size, remedy="Leave --sizes out"))
    return parse(MODELS[model].settings, {**settings, "dim": size}, at=at).model_dump(mode="json")


def tasks(contest: Contest) -> list[Task]:
    """Everything there is to do, in an order in which it can be done."""
    benches = {seed: contest if seed == contest.seed else contest.at(seed) for seed in contest.terms.seeds}
    return [task for bench in benches.values() for task in _of_seed(bench)]


def _of_seed(bench: Contest) -> Iterator[Task]:
    def student(entrant: Entrant) -> Task:
        def done() -> bool:
            lesson = bench.lesson(entrant)
            return lesson is not None and bench.done(lesson)

        def ready() -> bool:
            return bench.taught() and bench.lesson(entrant) is not None

        name = bench.label(f"{entrant.method}-{entrant.pupil.tag}")
        return Task(name, done, ready, lambda: bench.learn(entrant))

    def trials(entrant: Entrant) -> Task:
        search = bench.search(entrant)

        def ready() -> bool:
            return entrant.method == "plain" or bench.taught()

        return Task(bench.label(f"{search.name}-trials"), lambda: search.found() is not None, ready, search.run)

    if bench.run.teacher.given:
        yield Task(bench.label("teacher"), bench.taught, lambda: True, bench.teach)
    if bench.terms.trials and (bench.terms.tune_each or bench.seed == bench.terms.seeds[0]):
        searching = dict[Search, Entrant]()
        for entrant in bench.entrants:
            searching.setdefault(bench.search(entrant), entrant)
        yield from map(trials, searching.values())
    yield from (student(entrant) for entrant in bench.entrants)
