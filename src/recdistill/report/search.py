"""The page of a search: what was found, drawn; what it is worth beside random and hand-made cells; how it was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from typing_extensions import override

from recdistill.report import charts
from recdistill.report.cell import draw
from recdistill.report.heat import heat
from recdistill.report.page import Page
from recdistill.report.words import megabytes, milliseconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    from recdistill.evaluation.compare import PairedTest
    from recdistill.report.cell import Drawn
    from recdistill.report.page import Curve, Entry

__all__ = ["Beliefs", "Group", "Order", "Row", "SearchPage", "Spread", "Step"]

Group = Literal["teacher", "hand-made", "control", "random", "searched", "plain"]
_STYLES: dict[Group, int] = {"teacher": 0, "control": 1, "searched": 2, "hand-made": 3, "plain": 5, "random": 7}
_EXACT = 1e-9


@dataclass(frozen=True, slots=True)
class Row:
    """What the page knows of a system beside its card."""

    group: Group
    body: int
    """Parameters between the embedding and the output."""
    encoder_ms: float
    """Median milliseconds from a history to the state that items are scored with."""
    cost: float | None = None
    """By the search's price list; None where it is not made of cells."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Several systems of a kind in one metric: mean and standard deviation."""

    n: int
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Order:
    """Kendall's tau of cells by the supernet's weights, on validation data, with what they are after their training."""

    n: int
    valid: float
    """With the main metric on validation data."""
    test: float
    """On test data."""

    @property
    def said(self) -> str:
        """In a sentence."""
        return (
            f"Kendall\u2019s tau of the supernet\u2019s order of {self.n} cells with that after their training: "
            f"{self.valid:.2f} on validation data, {self.test:.2f} on test data."
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One search of several: what it was held to, what it cost, where it ended."""

    asked: str
    name: str
    """Of the row that trained its design."""
    cost: float
    unit: str
    validation: float
    """Of the derived student with the supernet's weights, at the best epoch."""
    seconds: float
    refined: str = ""
    """What became of the derived cells after the last epoch."""
    weight: float | None = None
    """Of the price; None where a budget held it."""


@dataclass(frozen=True, slots=True)
class Beliefs:
    """What the search thought of the operators at the end, for one architecture: E x O chances."""

    title: str
    edges: Sequence[str]
    operators: Sequence[str]
    chances: Sequence[Sequence[float]]
    taken: Sequence[int]
    """The operator of each edge in the design."""


@dataclass(frozen=True)
class SearchPage(Page):
    """Everything the page of a search says; `tests` are of the others less the searched one."""

    template: ClassVar[str] = "search.html.j2"
    rows: Mapping[str, Row] = field(default_factory=dict[str, Row])
    """By the names of the entries."""
    cells: Sequence[Drawn] = ()
    """The student's."""
    legend: Mapping[str, str] = field(default_factory=dict[str, str])
    """Operator of the student -> what it does."""
    chain: str = ""
    """What stands around the cells, in a sentence."""
    budget: str = ""
    """What it was held to, and whether that holds, in a sentence."""
    kept: bool = True
    """Whether that holds."""
    searched: str = "searched"
    """The name of the student the page is about."""
    random: Spread | None = None
    """Of the random cells, in the main metric."""
    order: Order | None = None
    """Whether the supernet ranks cells as their training does; None where too few were trained."""
    steps: Sequence[Step] = ()
    history: Curve | None = None
    """The epochs of the student's own search."""
    shares: Mapping[str, Sequence[float]] = field(default_factory=dict[str, "Sequence[float]"])
    """Term -> its share of the loss, in [0, 1], for every epoch."""
    beliefs: Sequence[Beliefs] = ()
    mapping: Sequence[Sequence[float]] = ()
    """Of what each cell learned (rows), the share from each layer of the teacher; rows sum to 1."""
    timing: str = ""
    """How latency was measured, in a sentence."""

    @cached_property
    @override
    def student(self) -> Entry | None:
        return next((entry for entry in self.entries if entry.name == self.searched), None)

    @override
    def style(self, entry: Entry) -> int:
        return _STYLES[self.rows[entry.name].group]

    @property
    def drawing(self) -> Markup:
        """The cells."""
        return draw(self.cells, label="The cells that were found")

    @property
    def gain(self) -> float | None:
        """How many deviations the searched student is above the mean of random cells of its price."""
        if self.random is None or self.random.n < 2 or self.random.deviation < _EXACT or self.student is None:
            return None
        return (self.student.metrics[self.main_metric].mean - self.random.mean) / self.random.deviation

    @property
    def beaten_by(self) -> list[str]:
        """The controls that have a higher mean than the searched student in the main metric."""
        if self.student is None:
            return []
        best = self.student.metrics[self.main_metric].mean
        return [
            entry.name
            for entry in self.entries
            if self.rows[entry.name].group in ("control", "random", "hand-made")
            and entry.metrics[self.main_metric].mean > best
        ]

    def row(self, entry: Entry) -> Row:
        """What is known of it beside its card."""
        return self.rows[entry.name]

    @property
    def fronts(self) -> list[tuple[Markup, str]]:
        """Quality against latency, bytes and the parameters of the body, each with its caption."""
        own = [entry for entry in self.entries if self.rows[entry.name].group != "teacher"]
        charted: list[tuple[Markup, str]] = []
        by: list[tuple[str, list[tuple[Entry, float]], tuple[str, ...], str]] = [
            (
                "ms from a history to a list, median (log scale)",
                [(e, e.p50) for e in self.entries if e.p50],
                (),
                "Encoder, scores of all items and the ten best, one history at a time.",
            ),
            (
                "bytes of the bundle (log scale)",
                [(e, float(e.size)) for e in self.entries if e.size],
                ("B", "kB", "MB", "GB"),
                "On disk, with the tables of items and users, which are most of it.",
            ),
            (
                "parameters of the body (log scale)",
                [(e, float(self.rows[e.name].body)) for e in own],
                (),
                "Between the embedding and the output: what is searched. Without the teacher.",
            ),
        ]
        for label, found, units, caption in by:
            points = [self._placed(entry, x) for entry, x in found if x > 0]
            if len(points) > 1:
                title = f"{self.main_metric} on test data against {label}"
                drawn = charts.scatter(
                    points, title=title, x_label=label, y_label=self.main_metric, x_unit=units, fronted=True
                )
                charted.append((drawn, caption))
        return charted

    @property
    def share_chart(self) -> Markup | None:
        """Each term's share of the search's loss."""
        if self.history is None or not self.shares:
            return None
        series = [
            charts.Line(name, self.history.epochs, [100 * value for value in values], 2 + at % 6 if at else 0)
            for at, (name, values) in enumerate(self.shares.items())
        ]
        return charts.lines(series, title="Shares of the loss", x_label="epoch", y_label="% of the loss")

    @property
    def search_charts(self) -> list[tuple[str, Markup, str]]:
        """Panels over the epochs of the search: (heading, chart, caption)."""
        curve = self.history
        if curve is None:
            return []
        panels: list[tuple[str, Markup, str]] = []
        captions = {
            "entropy": ("Entropy of alpha", "nats", "Mean over edges; it falls as the search makes up its mind."),
            "cost": ("Cost of the derived cells", self.steps[0].unit if self.steps else "", "By the price list."),
        }
        for name, values in curve.metrics.items():
            heading, y_label, caption = captions.get(
                name, (f"{name} of the derived cells", name, "On validation data, with the supernet\u2019s weights.")
            )
            line = charts.Line("", curve.checked, values, 2, curve.best.get(self.validation_metric or ""))
            drawn = charts.lines([line], title=heading, x_label="epoch", y_label=y_label, small=True)
            panels.append((heading, drawn, caption))
        return panels

    @property
    def belief_charts(self) -> list[tuple[str, Markup]]:
        """The chances of operators on edges."""
        return [
            (
                one.title,
                heat(
                    [list(row) for row in zip(*one.chances, strict=True)],
                    rows=one.operators,
                    columns=one.edges,
                    title=f"Chances of operators, {one.title}",
                    x_label="edge",
                    marked=one.taken,
                ),
            )
            for one in self.beliefs
        ]

    @property
    def mapping_chart(self) -> Markup | None:
        """Which student layer learned from which teacher layer."""
        if not self.mapping:
            return None
        return heat(
            self.mapping,
            rows=[f"cell {at}" for at in range(1, len(self.mapping) + 1)],
            columns=[str(at) for at in range(1, len(self.mapping[0]) + 1)],
            title="Transport between layers",
            x_label="layer of the teacher",
        )

    def _placed(self, entry: Entry, x: float) -> charts.Point:
        value, group = entry.metrics[self.main_metric], self.rows[entry.name].group
        about = f"{entry.name}: {value.mean:.4f} [{value.low:.4f}, {value.high:.4f}], {megabytes(entry.size)}"
        if entry.p50:
            about += f", {milliseconds(entry.p50)}"
        quiet = group == "random"
        return charts.Point(entry.name, x, value.mean, value.low, value.high, self.style(entry), about, quiet)

    def against(self, entry: Entry) -> tuple[PairedTest, float] | None:
        """The system less the searched one, user by user, and the corrected p-value."""
        if entry.name not in self.tests:
            return None
        return self.tests[entry.name], self.corrected[entry.name]
