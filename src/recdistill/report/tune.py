"""The page of a tuning: the best student under a budget, the front of quality against cost, and how it was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from recdistill.report import charts
from recdistill.report.page import Page
from recdistill.report.words import megabytes, milliseconds, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

__all__ = ["Round", "Row", "TunePage"]

_BYTES = ("B", "kB", "MB", "GB", "TB")
_PLAIN, _STUDENT = 1, 2


@dataclass(frozen=True, slots=True)
class Row:
    """A method at a width."""

    method: str
    dim: int
    bytes: int
    parameters: int
    p50_ms: float | None
    worth: float | None
    """The validation metric of its best trial; None where none gave a number."""
    low: float | None
    high: float | None
    plain: float | None
    """The same of the plain student of that width; None for itself."""
    front: bool
    best: bool
    trials: Sequence[float | None]
    """The metric of every trial."""

    @property
    def gain(self) -> float | None:
        """What distillation adds to the plain student, as a share of it."""
        return None if not self.plain or self.worth is None else self.worth / self.plain - 1


@dataclass(frozen=True, slots=True)
class Round:
    """How far a method came at the widest width."""

    method: str
    last: int
    """In how many rounds it was; 0 for the plain student, which stands beside them."""
    of: int
    trials: int
    worth: float | None
    seconds: float


@dataclass(frozen=True)
class TunePage(Page):
    """Everything the page of a tuning says; `entries` are the teacher, the best student and the plain one."""

    template: ClassVar[str] = "tune.html.j2"
    of: str = "bytes"
    """What the budget is of: "bytes", "latency" or "params"."""
    most: float = 1.0
    asked: str = ""
    """The budget, in words."""
    kept: str = ""
    """Whether it is kept, in a sentence without its point."""
    best_method: str = ""
    best_dim: int = 0
    rows: Sequence[Row] = ()
    rounds: Sequence[Round] = ()
    seconds: float = 0.0
    notes: Sequence[str] = ()
    teacher_valid: float | None = None

    @property
    def ordered(self) -> list[Row]:
        """The widest first, and of a width the best first."""
        return sorted(self.rows, key=lambda row: (-row.dim, -(row.worth or 0.0)))

    @property
    def timed(self) -> bool:
        """Whether latency was measured before training."""
        return any(row.p50_ms is not None for row in self.rows)

    @property
    def best(self) -> Row:
        """The student that was shipped."""
        return next(row for row in self.rows if row.best)

    @property
    def words(self) -> str:
        """What it came to, in a few sentences."""
        best, gain = self.best, self.best.gain
        said = [f"Best under {self.asked} on validation data: {best.method} at {best.dim} dims. {self.kept}."]
        if best.method == "plain":
            said.append("No method is better than the plain student: distillation buys nothing here.")
        elif gain is not None:
            plain = f"{self.validation_metric} {best.worth:.4f} on validation data, {gain:+.1%} over the plain student"
            said.append(f"{plain} of that width, tuned as much.")
        return "\n".join([*said, *self.notes])

    @property
    def fronts(self) -> list[tuple[Markup, str]]:
        """Quality against what the budget is of, and against bytes, each with its caption."""
        by = {"bytes": ("bytes of the bundle (log scale)", _BYTES), "params": ("parameters (log scale)", ())}
        by["latency"] = ("ms for one user's top-10, median (log scale)", ())
        charted: list[tuple[Markup, str]] = []
        for kind in dict.fromkeys((self.of, "bytes")):
            label, units = by[kind]
            points = self._points(kind)
            if not points:
                continue
            limit = (self.most, f"budget {self.asked}") if kind == self.of else None
            title = f"{self.validation_metric} on validation data against {label}"
            drawn = charts.scatter(
                points,
                title=title,
                x_label=label,
                y_label=f"{self.validation_metric}, validation",
                x_unit=units,
                fronted=True,
                limit=limit,
            )
            caption = "Up and left is better; the dashed line is the front of all that was tried."
            if self.teacher_valid is not None:
                caption += f" The teacher comes to {self.teacher_valid:.4f}."
            charted.append((drawn, caption))
        return charted

    def _points(self, kind: str) -> list[charts.Point]:
        """The best of each width by name; everything else small."""
        some = [row for row in self.ordered if row.worth is not None]
        named = {row.dim: row for row in reversed(some)}
        return [self._point_of(row, kind, quiet=row is not named[row.dim]) for row in some]

    def _point_of(self, row: Row, kind: str, *, quiet: bool) -> charts.Point:
        x = {"bytes": float(row.bytes), "params": float(row.parameters), "latency": row.p50_ms or 0.0}[kind]
        plain, worth = row.method == "plain", row.worth or 0.0
        low, high = worth if row.low is None else row.low, worth if row.high is None else row.high
        about = f"{row.method}, {row.dim} dims: {worth:.4f} [{low:.4f}, {high:.4f}], {megabytes(row.bytes)}"
        about += f", {short(row.parameters)} parameters"
        if row.p50_ms is not None:
            about += f", {milliseconds(row.p50_ms)}"
        name = f"{row.method} {row.dim}"
        return charts.Point(name, x, worth, low, high, _PLAIN if plain else _STUDENT, about, quiet)
