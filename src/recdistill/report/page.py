"""`report.html`: what a run came to, on one page that loads nothing from anywhere.

The page is a template (`page.html.j2`) filled with plain values; names come from users and are escaped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from recdistill.report import charts
from recdistill.report.words import amount, megabytes, milliseconds, short, times

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    from recdistill.evaluation.card import Card
    from recdistill.evaluation.compare import Interval, PairedTest

__all__ = ["Curve", "Entry", "Page", "Role", "render"]

Role = Literal["teacher", "plain", "student"]
_SIGNIFICANT = 0.05
_BYTES = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class Curve:
    """One run's epochs."""

    epochs: Sequence[int]
    """Those that are drawn."""
    seconds: Sequence[float]
    """Training time up to the end of each."""
    losses: Mapping[str, Sequence[float]]
    """Each term's weighted mean per step."""
    checked: Sequence[int]
    """The epochs that ended with a validation."""
    metrics: Mapping[str, Sequence[float]]
    """On validation data, one value for each of `checked`."""
    best: Mapping[str, int] = field(default_factory=dict[str, int])
    """The best epoch of each metric."""


@dataclass(frozen=True)
class Entry:
    """One system of the table."""

    card: Card
    role: Role
    curve: Curve | None = None
    best: bool = False
    """The student the page is about."""
    at_limit: bool = False
    """Whether training ended because all epochs were used, not because nothing improved any more."""

    @property
    def name(self) -> str:
        """What people call it."""
        return self.card.name

    @property
    def metrics(self) -> Mapping[str, Interval]:
        """Of the last evaluation on the card: the test."""
        return self.card.metrics[-1].values

    @property
    def size(self) -> int:
        """Bytes of its bundle; 0 where it has none."""
        return self.card.bytes or 0

    @property
    def p50(self) -> float | None:
        """Median milliseconds for one user's top-10."""
        return None if self.card.latency is None else self.card.latency.p50_ms


@dataclass(frozen=True)
class Page:
    """Everything the page says."""

    template: ClassVar[str] = "page.html.j2"
    title: str
    subtitle: str
    entries: Sequence[Entry]
    """The teacher first."""
    main_metric: str
    """The metric of the charts and the headline."""
    tests: Mapping[str, PairedTest] = field(default_factory=dict[str, "PairedTest"])
    """System -> its difference from the plain student by the main metric, user by user."""
    corrected: Mapping[str, float] = field(default_factory=dict[str, float])
    """System -> that test's p-value, corrected for their number (Holm)."""
    validation_metric: str | None = None
    data: Sequence[str] = ()
    """What was read and how it was divided, a sentence each."""
    settings: str = ""
    """The run file."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    citations: Sequence[str] = ()
    command: str = ""

    def render(self) -> str:
        """The page as HTML."""
        return render(self.template, self)

    @cached_property
    def teacher(self) -> Entry | None:
        """The teacher's row."""
        return next((entry for entry in self.entries if entry.role == "teacher"), None)

    @cached_property
    def student(self) -> Entry | None:
        """The student the headline speaks of: the one marked best, else the best by the main metric."""
        students = [entry for entry in self.entries if entry.role == "student"]
        marked = [entry for entry in students if entry.best]
        return (marked or sorted(students, key=lambda e: -e.metrics[self.main_metric].mean) or [None])[0]

    @property
    def plain(self) -> Entry | None:
        """The student without a teacher."""
        return next((entry for entry in self.entries if entry.role == "plain"), None)

    @property
    def doubt(self) -> float | None:
        """The headline student's corrected p-value, where its difference from the plain one is not significant."""
        p = None if self.student is None else self.corrected.get(self.student.name)
        return p if p is not None and p > _SIGNIFICANT else None

    @property
    def against_plain(self) -> list[tuple[Entry, PairedTest, float]]:
        """Every system that was tested against the plain student, with the corrected p-value."""
        return [(e, self.tests[e.name], self.corrected[e.name]) for e in self.entries if e.name in self.tests]

    @property
    def metrics(self) -> list[str]:
        """The columns."""
        return list(self.entries[0].metrics) if self.entries else []

    @property
    def top(self) -> dict[str, float]:
        """The best mean of each metric among students, for emphasis."""
        students = [e for e in self.entries if e.role != "teacher"]
        return {m: max((e.metrics[m].mean for e in students), default=0.0) for m in self.metrics}

    def style(self, entry: Entry) -> int:
        """Colour and marker: 0 the teacher, 1 the plain student, then 2 to 7."""
        if entry.role != "student":
            return 0 if entry.role == "teacher" else 1
        students = [e.name for e in self.entries if e.role == "student"]
        return 2 + students.index(entry.name) % 6

    def shape(self, entry: Entry) -> str:
        """The marker's path."""
        return charts.SHAPES[self.style(entry)]

    @property
    def protocol(self) -> str:
        """How it was measured."""
        return ", ".join(dict.fromkeys(entry.card.metrics[-1].protocol for entry in self.entries))

    @property
    def users(self) -> str:
        """How many users the means run over."""
        counts = sorted({entry.card.metrics[-1].users for entry in self.entries})
        return " to ".join(f"{n:,}" for n in dict.fromkeys([counts[0], counts[-1]])) if counts else "0"

    @property
    def against_bytes(self) -> Markup | None:
        """Quality against bytes, where there is something to weigh."""
        points = [self._point(entry, entry.size) for entry in self.entries if entry.size > 0]
        if not points:
            return None
        title = f"{self.main_metric} on test data against bytes"
        return charts.scatter(points, title=title, x_label="bytes (log scale)", y_label=self.main_metric, x_unit=_BYTES)

    @property
    def against_latency(self) -> Markup | None:
        """Quality against the median latency, where it was measured."""
        points = [self._point(entry, entry.p50) for entry in self.entries if entry.p50]
        if not points:
            return None
        title = f"{self.main_metric} on test data against latency"
        label = "ms for one user's top-10, median (log scale)"
        return charts.scatter(points, title=title, x_label=label, y_label=self.main_metric)

    @property
    def validation(self) -> list[Markup]:
        """The validation metric of every run: by epoch, and by the seconds spent."""
        metric = self.validation_metric
        runs = [(entry, entry.curve) for entry in self.entries if entry.curve is not None]
        runs = [(entry, curve) for entry, curve in runs if metric is not None and curve.metrics.get(metric)]
        if metric is None or not runs:
            return []
        by_epoch: list[charts.Line] = []
        by_time: list[charts.Line] = []
        for entry, curve in runs:
            spent = dict(zip(curve.epochs, curve.seconds, strict=True))
            values, style, best = curve.metrics[metric], self.style(entry), curve.best.get(metric)
            by_epoch.append(charts.Line(entry.name, curve.checked, values, style, best))
            by_time.append(
                charts.Line(entry.name, [spent[e] for e in curve.checked], values, style, spent.get(best or 0))
            )
        title = f"{metric} on validation data by"
        return [
            charts.lines(by_epoch, title=f"{title} epoch", x_label="epoch", y_label=metric),
            charts.lines(by_time, title=f"{title} seconds of training", x_label="seconds of training", y_label=metric),
        ]

    @property
    def losses(self) -> list[tuple[Entry, Markup]]:
        """Each run's loss terms, epoch by epoch."""
        panels: list[tuple[Entry, Markup]] = []
        for entry in self.entries:
            if entry.curve is None or not entry.curve.losses:
                continue
            series = [
                charts.Line(name, entry.curve.epochs, values, 2 + at % 6 if at else 0)  # the base loss comes first
                for at, (name, values) in enumerate(entry.curve.losses.items())
            ]
            title = f"Loss terms of {entry.name}"
            drawn = charts.lines(series, title=title, x_label="epoch", y_label="loss per step", log_y=True, small=True)
            if drawn:
                panels.append((entry, drawn))
        return panels

    def _point(self, entry: Entry, x: float | None) -> charts.Point:
        value = entry.metrics[self.main_metric]
        about = f"{entry.name}: {value.mean:.4f} [{value.low:.4f}, {value.high:.4f}], {megabytes(entry.size)}"
        if entry.p50:
            about += f", {milliseconds(entry.p50)}"
        return charts.Point(entry.name, x or 1.0, value.mean, value.low, value.high, self.style(entry), about)


def render(template: str, page: object) -> str:
    """A template of this package, filled; every text is escaped."""
    environment = Environment(
        loader=PackageLoader("recdistill.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amount": amount,
        "megabytes": megabytes,
        "milliseconds": milliseconds,
        "short": short,
        "times": times,
    }
    return environment.get_template(template).render(page=page)
