"""What a comparison came to: means over seeds, paired tests, segments, costs; numbers alone.

A system's values of one user are averaged over seeds before any test, which speaks of users. Tests of one metric are
corrected together (Holm), over all rows.

Letters: S seeds, m users with a target.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from recdistill.evaluation.compare import Interval, PairedTest, bootstrap_interval, holm, paired_test, retention

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from rich.console import Console, ConsoleOptions, RenderResult

    from recdistill.evaluation.latency import Latency

__all__ = ["TEACHER", "Cost", "Part", "Row", "Standings", "Versus", "above", "costs_relative", "rows_of"]

TEACHER = "teacher"
Values = dict[str, "NDArray[np.float64]"]
"""System -> (S, m) values."""


@dataclass(frozen=True, slots=True)
class Versus:
    """One system against another, user by user."""

    against: str
    difference: Interval
    """This one less the other."""
    p: float | None
    """Sign-flip permutation, corrected for the number of rows; None where nothing was tested."""
    better: int
    """Users for whom this one is better."""
    worse: int
    equal: int


@dataclass(frozen=True, slots=True)
class Row:
    """One system on one metric, over all measured users or a segment."""

    mean: Interval
    """Over users, and over seeds where there are several."""
    by_seed: tuple[float, ...]
    kept: Interval | None = None
    """Per cent of the teacher's; None for the teacher."""
    baseline: Versus | None = None
    """Against the plain student of its size."""
    best: Versus | None = None
    """Against the student that is best on validation data."""
    teacher: Versus | None = None
    """Against the teacher: counts of users alone, without a test."""


@dataclass(frozen=True, slots=True)
class Part:
    """A segment of users or items: where it was cut, and everybody's rows in it."""

    about: str
    users: int
    """Measured users: of a segment of items, those with a target in it."""
    rows: dict[str, Row]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a system takes."""

    student: str
    """ "mf, 20 dims"."""
    parameters: int
    bytes: int | None
    """Of its bundle."""
    latency: Latency | None
    """Of the first seed's bundle."""
    seconds: float | None
    """Of training and validation, the mean over seeds."""
    epochs: float | None
    """The mean over seeds."""
    overlap: float | None
    """Share of the teacher's first ten items that are among its own, the mean over users and seeds; in [0, 1]."""
    tuning: float | None = None
    """Seconds of all trials; None where nothing was tuned."""
    times: float | None = None
    """Seconds over those of the baseline of its size."""
    epoch_times: float | None = None
    """Seconds an epoch over those of the baseline of its size."""


@dataclass(frozen=True)
class Standings:
    """Everything a comparison says."""

    rows: dict[str, dict[str, Row]]
    """Metric -> system -> row; the teacher first where there is one."""
    segments: dict[str, Part]
    """Name -> its rows in the main metric."""
    costs: dict[str, Cost]
    seeds: tuple[int, ...]
    baselines: dict[str, str]
    """System -> what it is tested against."""
    best: str
    """The student with the greatest mean of the main metric on the data in `judged`."""
    main: str
    """The last metric of the run file: of segments, charts and the choice of the best."""
    protocol: str
    tuned: tuple[dict[str, object], ...] = ()
    """The trials of every search, as plain values."""
    failed: dict[str, str] = field(default_factory=dict[str, str])
    """System -> why it is not in the table."""
    notes: tuple[str, ...] = ()
    """What has to be known to read the figures, once each."""
    judged: Literal["validation", "test"] = "validation"
    """By which data `best` was chosen: test where nothing is held out for validation."""

    @property
    def users(self) -> int:
        """How many the means run over."""
        return next(iter(self.rows[self.main].values())).mean.n

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The tables of a terminal."""
        from recdistill.recipes.standings_page import terminal  # noqa: PLC0415 - it reads this file

        yield from terminal(self, width=options.max_width)


def rows_of(values: Values, baselines: Mapping[str, str], best: str, *, tests: bool = True) -> dict[str, Row]:
    """Every system's row on one metric.

    Args:
        values: system -> (S, m); the teacher under its name.
        baselines: system -> what it is tested against.
        best: another system that all are tested against.
        tests: whether to test against `best` too, and to say what is kept of the teacher.
    """
    teacher = values.get(TEACHER)
    against = {name: base for name, base in baselines.items() if name in values and base in values and name != base}
    first = _tested(values, against)
    others = {name: best for name in values if name not in (best, TEACHER)} if tests and best in values else {}
    second = _tested(values, others)
    found: dict[str, Row] = {}
    for name, each in values.items():
        row = Row(bootstrap_interval(each), tuple(each.mean(axis=1).tolist()), None, first.get(name), second.get(name))
        if teacher is not None and name != TEACHER:
            kept = retention(each, teacher) if tests and teacher.mean() > 0 else None
            row = replace(row, kept=kept, teacher=_counted(each, teacher))
        found[name] = row
    return found


def above(rows: Mapping[str, Row], plain: Sequence[str], metric: str) -> list[str]:
    """A warning of every plain student that is better than its teacher; empty where the teacher has something to teach.

    Args:
        rows: of one metric; the teacher among them, or not.
        plain: the students without a teacher.
        metric: its name.
    """
    teacher = rows.get(TEACHER)
    better = [name for name in plain if teacher is not None and rows[name].mean.mean > teacher.mean.mean]
    if teacher is None or not better:
        return []
    named, verb = " and ".join(f"{name} ({rows[name].mean.mean:.4f})" for name in better), "are" if better[1:] else "is"
    return [
        f"Warning: {named}, without a teacher, {verb} above the teacher ({teacher.mean.mean:.4f}) in {metric}: what is "
        "kept of so weak a teacher says little. Tune it first: its lr, weight_decay and epochs in [teacher.train]."
    ]


def costs_relative(costs: Mapping[str, Cost], baselines: Mapping[str, str]) -> dict[str, Cost]:
    """The costs, with training times over those of each system's baseline."""

    def ratio(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None or b <= 0 else a / b

    found: dict[str, Cost] = {}
    for name, cost in costs.items():
        base = costs.get(baselines.get(name, ""))
        if base is not None:
            one, other = ratio(cost.seconds, cost.epochs), ratio(base.seconds, base.epochs)
            cost = replace(cost, times=ratio(cost.seconds, base.seconds), epoch_times=ratio(one, other))  # noqa: PLW2901
        found[name] = cost
    return found


def _tested(values: Values, against: Mapping[str, str]) -> dict[str, Versus]:
    """Each system against another, the p-values corrected together."""
    found = {name: paired_test(values[name], values[other]) for name, other in against.items()}
    adjusted: Sequence[float] = np.asarray(holm([test.p_permutation for test in found.values()])).tolist()
    return {name: _versus(against[name], test, p) for (name, test), p in zip(found.items(), adjusted, strict=True)}


def _versus(against: str, test: PairedTest, p: float) -> Versus:
    return Versus(against, test.difference, p, test.wins, test.losses, test.ties)


def _counted(each: NDArray[np.float64], teacher: NDArray[np.float64]) -> Versus:
    difference = each.mean(axis=0) - teacher.mean(axis=0)  # (m,)
    mean, n = float(difference.mean()), len(difference)
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    return Versus(TEACHER, Interval(mean, mean, mean, n), None, better, worse, n - better - worse)
