"""Fair tuning: the same number of trials for every method, on validation data, each trial kept as a cell.

What is fair, here: every method, "plain" among them, searches the learning rate and the weight decay of the student's
training (`BASE`), and beside them the settings that its own file names (`MethodEntry.tuned`), one or two. The number of
trials is the same, and so a method with more to search has fewer trials a setting, never a plain student that was left
at its defaults. The first trial is what would be run without tuning: the run file's settings, or the defaults.

A trial is judged by the first validation metric of the training at its best epoch, all of them with the run's seed;
test data are not looked at. A trial whose loss or metric is not a number counts, is shown, and is never chosen: the
sampler is told it was worth 0, which is the worst that a metric can be.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from recdistill.errors import TrainingError, UsageError, problem
from recdistill.evaluation.evaluate import evaluate
from recdistill.methods import METHODS
from recdistill.methods.ranges import Choice, LogRange, flat, overlaid
from recdistill.methods.source import code_of
from recdistill.recipes.lessons import Lesson
from recdistill.recipes.suggest import suggest
from recdistill.recipes.train import TrainSettings
from recdistill.settings import parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from recdistill.methods.ranges import LinearRange, Range, Value
    from recdistill.recipes.lessons import Lessons
    from recdistill.settings import Settings

__all__ = ["BASE", "Search", "Trial", "Tuned", "check_valid", "edges_told", "space", "tuned"]

BASE: Mapping[str, Range] = {"lr": LogRange(5e-4, 2e-2), "weight_decay": LogRange(1e-5, 1e-2)}
"""Settings of the student's training that are tuned for every method."""
_EDGE = 0.02
"""The share of a range, at either end, that is its edge: a sampler comes near an end and hardly ever meets it."""


@dataclass(frozen=True)
class Trial:
    """One student, tried."""

    number: int
    """From 0, the settings as they would be run without tuning."""
    values: dict[str, Value]
    """What was tried, by dotted key: "train.lr", "method.weight"."""
    metric: float | None
    """The validation metric at its best epoch, in [0, 1]; None where the trial failed."""
    epochs: int
    seconds: float
    """Of training and validation."""
    failed: str | None = None
    """Why there is no metric."""
    low: float | None = None
    """The metric's 95 % interval over users (bootstrap); None where there is no metric."""
    high: float | None = None


@dataclass(frozen=True)
class Tuned:
    """What the trials of one method came to, and the settings to run it with."""

    method: str
    model: str
    model_settings: Mapping[str, Any]
    """Of the student that was tuned."""
    seed: int
    metric: str
    """The validation metric by which they were judged."""
    trials: tuple[Trial, ...]
    how: Mapping[str, Any]
    """The method's settings, all of them."""
    training: TrainSettings
    space: Mapping[str, Range] = field(default_factory=dict[str, "Range"])
    """What was searched."""

    @property
    def best(self) -> Trial:
        """The trial of the greatest metric, the earliest of equals; the first where none gave a number."""
        return _best(self.trials)

    @property
    def seconds(self) -> float:
        """What tuning cost: the training time of all trials."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def at_edge(self) -> list[str]:
        """The values of the best trial that lie at an end of what was searched, each with its range."""
        if len(self.trials) < 2 or self.best.metric is None:
            return []
        values = self.best.values
        return [
            f"{key.partition('.')[2]} {values[key]:.3g} ({each})"
            for key, each in self.space.items()
            if not isinstance(each, Choice) and not _EDGE < _place(each, values[key]) < 1 - _EDGE
        ]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "method": self.method,
            "student": {"model": self.model, **self.model_settings},
            "seed": self.seed,
            "metric": f"valid {self.metric}",
            "space": {key: str(each) for key, each in self.space.items()},
            "best": self.best.number,
            "settings": {"method": dict(self.how), "train": self.training.model_dump(mode="json")},
            "trials": [asdict(trial) for trial in self.trials],
        }


def space(method: str, settings: Settings) -> dict[str, Range]:
    """Everything that is searched for a method with such settings, by dotted key: "train.lr", "method.weight"."""
    own = METHODS[method].tuned(settings)
    return {f"train.{key}": each for key, each in BASE.items()} | {f"method.{key}": own[key] for key in own}


@dataclass(frozen=True, eq=False, kw_only=True)
class Search:
    """The trials of one method for one student; nothing is tried before it is asked for."""

    bench: Lessons
    """The data, the teacher, the seed and the folder."""
    model: str
    """The student: a registered name."""
    model_settings: Mapping[str, Any]
    """All of its settings."""
    method: str
    """A registered name."""
    how: Settings
    """The method's settings, where they are not tuned."""
    training: TrainSettings
    """How the student is trained, where it is not tuned."""
    trials: int
    """How many, at least 1; the first is `how` and `training` as they are."""
    name: str
    """Of the cells and the logs."""

    @cached_property
    def space(self) -> dict[str, Range]:
        """What is searched."""
        return space(self.method, self.how)

    def found(self) -> Tuned | None:
        """What a finished search came to; None where it is not finished."""
        done = self.bench.cells.get(self._label, self._about)
        return None if done is None else self._tuned([Trial(**trial) for trial in done["trials"]])

    def run(self) -> Tuned:
        """Try what has not been tried, or read what has.

        Raises:
            UsageError: no trials, no validation data to judge by, or Optuna is not installed.
            RecdistillError: training cannot be done at all: a teacher that lacks what the method asks.
        """
        if self.trials < 1:
            raise UsageError(problem("Tuning takes one trial or more", self.trials, remedy="--trials 0 tunes nothing"))
        check_valid(self.bench, remedy="; or tune nothing: --trials 0")
        if (done := self.found()) is not None:
            return done
        finished: list[Trial] = []
        for number in range(self.trials):
            values = flat(self._start, self.space)
            if number:
                told = [(trial.values, trial.metric or 0.0) for trial in finished]
                values = suggest(self.space, told, seed=self.bench.seed, purpose=self.method)
            finished.append(_tried(self._lesson(number, values), number, values))
        self.bench.cells.put(self._label, self._about, {"trials": [asdict(trial) for trial in finished]})
        return self._tuned(finished)

    @property
    def _label(self) -> str:
        return self.bench.label(f"{self.name}-trials")

    @cached_property
    def _about(self) -> dict[str, Any]:
        """All that the winner depends on."""
        first = self._lesson(0, flat(self._start, self.space))
        return {"first": first.about, "trials": self.trials, "space": {k: str(v) for k, v in self.space.items()}}

    @cached_property
    def _start(self) -> dict[str, Any]:
        return {"method": self.how.model_dump(mode="json"), "train": self.training.model_dump(mode="json")}

    def _lesson(self, number: int, values: Mapping[str, Value]) -> Lesson:
        chosen = overlaid(self._start, values)
        how, training = _table(chosen["method"]), _table(chosen["train"])
        return Lesson(
            bench=self.bench,
            name=f"{self.name}-trial{number}",
            model=self.model,
            settings=self.model_settings,
            method=self.method,
            how=parse(METHODS[self.method].settings, how, at="method").model_dump(mode="json"),
            training=parse(TrainSettings, training, at="train"),
            code=code_of(self.method, *how.get("parts", ())),
        )

    def _tuned(self, trials: list[Trial]) -> Tuned:
        best = self._lesson(_best(trials).number, _best(trials).values)
        return Tuned(
            method=self.method,
            model=self.model,
            model_settings=self.model_settings,
            seed=self.bench.seed,
            metric=self.training.metrics[0],
            trials=tuple(trials),
            how=best.how,
            training=best.training,
            space=self.space,
        )


def tuned(
    bench: Lessons,
    model: str,
    model_settings: Mapping[str, Any],
    method: str,
    *,
    trials: int = 8,
    how: Settings | None = None,
    training: TrainSettings,
    name: str | None = None,
) -> Tuned:
    """Search the settings of a method for one student; a finished trial is read, a killed search goes on as it was.

    Trials come one after the other, since each is suggested by those before it: the suggestion is a function of the
    finished trials, the bench's seed and the method, so that two processes, or one that was killed, try the same.

    Args:
        bench: the data, the teacher, the seed and the folder.
        model: the student: a registered name.
        model_settings: all of its settings.
        method: a registered name.
        trials: how many, at least 1; the first is `how` and `training` as they are.
        how: the method's settings; its defaults when None.
        training: how the student is trained, where it is not tuned.
        name: of the cells and the logs; the method when None.

    Raises:
        UsageError: no trials, no validation data to judge by, or Optuna is not installed.
        RecdistillError: training cannot be done at all: a teacher that lacks what the method asks.
    """
    return Search(
        bench=bench,
        model=model,
        model_settings=model_settings,
        method=method,
        how=METHODS[method].settings() if how is None else how,
        training=training,
        trials=trials,
        name=method if name is None else name,
    ).run()


def check_valid(bench: Lessons, *, remedy: str = "") -> None:
    """Refuse to tune where there is nothing to judge by.

    Args:
        bench: whose split.
        remedy: what else could be done.

    Raises:
        UsageError: the validation part is empty.
    """
    if not len(bench.split.valid.queries):
        remedy = f"Hold some out: data.valid above 0, or a split that does{remedy}"
        raise UsageError(problem("Tuning is judged on validation data, and there are none", remedy=remedy))


def edges_told(found: Iterable[Tuned]) -> list[str]:
    """One sentence of all winners that lie at an end of what was searched; empty where none does."""
    at = [f"{each.method}'s {' and '.join(each.at_edge)}" for each in found if each.at_edge]
    if not at:
        return []
    return [f"Ended at the edge of what is searched, beyond which it may be better: {'; '.join(dict.fromkeys(at))}."]


def _place(of: LogRange | LinearRange, value: Value) -> float:
    """Where a value lies in its range: 0 at the low end, 1 at the high end."""
    scale = math.log if isinstance(of, LogRange) else float
    return (scale(of.nearest(value)) - scale(of.low)) / (scale(of.high) - scale(of.low))


def _best(trials: Sequence[Trial]) -> Trial:
    return max(trials, key=lambda trial: -math.inf if trial.metric is None else trial.metric)


def _tried(lesson: Lesson, number: int, values: dict[str, Value]) -> Trial:
    """A trial, trained and judged, or read; its checkpoint is needed no longer."""
    about, cells, label = {"trial": lesson.about}, lesson.bench.cells, lesson.bench.label(lesson.name)
    with cells.claim(label, about, wait=True):  # another process at the same trial: wait, and read
        done = cells.get(label, about)
        if done is None:
            done = _judged(lesson)
            cells.put(label, about, {**done, "values": values})
        lesson.checkpoint.unlink(missing_ok=True)
    of = done["metric"], done["epochs"], done["seconds"], done["failed"]
    return Trial(number, values, *of, low=done["low"], high=done["high"])


def _judged(lesson: Lesson) -> dict[str, Any]:
    metric = lesson.training.metrics[0]
    begun = time.perf_counter()
    try:
        report = lesson.trained.report
    except TrainingError as error:  # it diverged: that is a result
        spent = round(time.perf_counter() - begun, 3)
        return {"metric": None, "epochs": 0, "seconds": spent, "failed": str(error), "low": None, "high": None}
    worth = report.best[metric].value if metric in report.best else math.nan
    sound = math.isfinite(worth)
    return {
        "epochs": len(report.history),
        "seconds": round(report.seconds, 3),
        "failed": None if sound else f"{metric} was never measured: no epoch was validated",
        **(_exact(lesson, metric) if sound else {"metric": None, "low": None, "high": None}),
    }


def _exact(lesson: Lesson, metric: str) -> dict[str, float]:
    """The best epoch's metric and its interval over users: `trained` ends there. Early stopping sees four digits."""
    bench, protocol = lesson.bench, lesson.training.protocol
    candidates, ranker = bench.candidates(protocol), lesson.trained.ranker()
    found = evaluate(ranker, bench.split.valid, (metric,), protocol=protocol, candidates=candidates).metrics[metric]
    return {"metric": found.mean, "low": found.low, "high": found.high}


def _table(value: object) -> dict[str, Any]:
    assert isinstance(value, dict)  # noqa: S101 - a dump of settings
    return value  # pyright: ignore[reportUnknownVariableType]
