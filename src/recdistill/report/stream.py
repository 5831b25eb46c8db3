"""The page of a stream: how well it learns and keeps, cycle by cycle, what each stage took, what is due."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from recdistill.report import charts
from recdistill.report.words import amount, megabytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from recdistill.stream.status import CycleStatus, Status

__all__ = ["StreamPage"]

_STAGES = ("collect", "holdout", "student", "gate", "publish", "teacher", "ensemble", "distil", "proxies")


@dataclass(frozen=True)
class StreamPage:
    """Everything the page says."""

    status: Status
    settings: str = ""
    """`stream.toml`."""
    data: Sequence[str] = ()
    citations: Sequence[str] = ()
    command: str = "recdistill stream report"
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def render(self) -> str:
        """The page as HTML."""
        environment = Environment(
            loader=PackageLoader("recdistill.report", "."),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"amount": amount, "megabytes": megabytes}
        return environment.get_template("stream.html.j2").render(page=self)

    @property
    def title(self) -> str:
        """The headline."""
        return f"Stream {self.status.folder}"

    @property
    def last(self) -> CycleStatus | None:
        """The newest cycle whose student was measured."""
        return next((cycle for cycle in reversed(self.status.cycles) if cycle.student), None)

    @property
    def curves(self) -> list[Markup]:
        """LA, RA and H of the students; H of both sides; the newest block, also of what is served, by kind of user."""
        k = self.status.k
        x = "cycle"
        drawn = [
            charts.lines(
                [self._line(name, [(c.cycle, (c.student or {}).get(name)) for c in self.status.cycles], style)
                 for style, name in ((2, "LA"), (3, "RA"), (4, "H"))],
                title=f"What is learned (LA), what is kept (RA), and their harmonic mean (H), recall@{k}",
                x_label=x,
                y_label=f"student, recall@{k}",
            ),
            charts.lines(
                [
                    self._line("teacher", [(c.cycle, (c.teacher or {}).get("H")) for c in self.status.cycles], 0),
                    self._line("student", [(c.cycle, (c.student or {}).get("H")) for c in self.status.cycles], 2),
                ],
                title="H of teacher and student",
                x_label=x,
                y_label="H",
            ),
            charts.lines(
                [
                    self._line("served", [(c.cycle, c.served) for c in self.status.cycles], 0),
                    self._line("student", [(c.cycle, c.newest) for c in self.status.cycles], 2),
                ],
                title="Recall on the newest block of what was served, and of the student of the cycle",
                x_label=x,
                y_label=f"newest block, recall@{k}",
            ),
            charts.lines(
                [self._line(short, [(c.cycle, c.segments.get(name)) for c in self.status.cycles], style)
                 for style, name, short in ((2, "known", "known"), (3, "new", "new"), (1, "popularity", "popular"))],
                title="Recall on the newest block by kind of user, and of popularity",
                x_label=x,
                y_label=f"newest block, recall@{k}",
            ),
            charts.lines(
                [self._line(name, [(c.cycle, _seconds(c, name)) for c in self.status.cycles], 2 + at % 6)
                 for at, name in enumerate(("student", "teacher", "ensemble", "distil"))],
                title="Seconds of the stages",
                x_label=x,
                y_label="seconds (log scale)",
                log_y=True,
            ),
        ]  # fmt: skip
        return [one for one in drawn if one]

    @property
    def times(self) -> list[tuple[str, list[float | None]]]:
        """Stage -> seconds in each cycle."""
        return [(name, [_seconds(cycle, name) for cycle in self.status.cycles]) for name in _STAGES]

    @staticmethod
    def _line(name: str, places: Sequence[tuple[int, float | None]], style: int) -> charts.Line:
        kept = [(x, y) for x, y in places if y is not None]
        return charts.Line(name, [x for x, _ in kept], [y for _, y in kept], style)


def _seconds(cycle: CycleStatus, stage: str) -> float | None:
    """Of a stage, all teachers together; None where it was not run."""
    found = [value for name, value in cycle.seconds.items() if name.partition("[")[0] == stage]
    return sum(found) if found else None
