"""The page of a comparison: every table, quality against cost drawn, and each trial of the tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from recdistill.report import charts
from recdistill.report.page import render
from recdistill.report.words import megabytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    from recdistill.evaluation.compare import Interval

__all__ = ["ContestPage", "Dot", "Told"]

_BYTES = ("B", "kB", "MB", "GB", "TB")


class Told(Protocol):
    """A table in words."""

    @property
    def title(self) -> str:
        """Above it."""
        ...

    @property
    def heading(self) -> tuple[str, ...]:
        """Of the columns."""
        ...

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The system's name first."""
        ...

    @property
    def note(self) -> str:
        """Below it."""
        ...


@dataclass(frozen=True, slots=True)
class Dot:
    """A system of the charts."""

    name: str
    value: Interval
    """Of the main metric."""
    bytes: int | None
    seconds: float | None
    """Of training."""
    style: int
    """Colour and marker, 0 to 7."""


@dataclass(frozen=True)
class ContestPage:
    """Everything the page says."""

    template: ClassVar[str] = "contest.html.j2"
    title: str
    subtitle: str
    tables: Sequence[Told]
    """The first one is of the main metric's kind: one row a system."""
    best: str
    """The student that is best on validation data."""
    main_metric: str
    dots: Sequence[Dot] = ()
    notes: Sequence[str] = ()
    searches: Sequence[Mapping[str, Any]] = ()
    """Of each: method, student, seed, metric, space, best, trials."""
    data: Sequence[str] = ()
    settings: str = ""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    citations: Sequence[str] = ()
    command: str = ""

    def render(self) -> str:
        """The page as HTML."""
        return render(self.template, self)

    @property
    def charts(self) -> list[Markup]:
        """Quality against bytes, and against seconds of training."""
        drawn: list[Markup] = []
        title = f"{self.main_metric} on test data against"
        weighed = [self._point(dot, dot.bytes) for dot in self.dots if dot.bytes]
        if weighed:
            label = "bytes (log scale)"
            drawn.append(
                charts.scatter(weighed, title=f"{title} bytes", x_label=label, y_label=self.main_metric, x_unit=_BYTES)
            )
        timed = [self._point(dot, dot.seconds) for dot in self.dots if dot.seconds]
        if timed:
            label = "seconds of training (log scale)"
            drawn.append(charts.scatter(timed, title=f"{title} training", x_label=label, y_label=self.main_metric))
        return drawn

    def _point(self, dot: Dot, x: float | None) -> charts.Point:
        value = dot.value
        about = f"{dot.name}: {value.mean:.4f} [{value.low:.4f}, {value.high:.4f}], {megabytes(dot.bytes)}"
        return charts.Point(dot.name, x or 1.0, value.mean, value.low, value.high, dot.style, about)
