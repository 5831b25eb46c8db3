"""What a searched student costs as it is shipped, in bytes of a bundle or milliseconds of an answer, and its budget.

A price list (`search.cost`, `search.latency`) knows operators and cells; what stands around them is measured: the
cheapest student, untrained, is written or asked as every other, and what it takes above its cells is the fixed part. A
sum is still no measurement, so whoever is chosen is measured too (`Pricing.keeping`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from recdistill.recipes.answers import answers
from recdistill.recipes.search import training_of
from recdistill.recipes.train import fit
from recdistill.recipes.weighing import asked, weighed
from recdistill.search.budget import Budget, figure
from recdistill.search.cost import Costs
from recdistill.search.derive import Design
from recdistill.search.model import Cells, of_design
from recdistill.search.run import prices
from recdistill.search.space import SPACES

if TYPE_CHECKING:
    from recdistill.recipes.lessons import Lessons
    from recdistill.recipes.searchfile import SearchPlan
    from recdistill.recipes.trained import Trained
    from recdistill.search.run import Found
    from recdistill.search.settings import SearchSettings

__all__ = ["Priced", "Pricing", "Verdict", "held_to", "verdict"]

_TIMED = 1.0  # seconds for a student's single answers, and again for its tables
_LEAST = 0.01
"""Of a budget, by how much it is tightened at least."""


@dataclass(frozen=True, slots=True)
class Priced:
    """A price list and what it came from."""

    costs: Costs
    most: float | None
    """The budget in its unit, or None."""
    seconds: float
    """What measuring it took."""


@dataclass(frozen=True)
class Pricing:
    """The prices of a run, measured once and kept with it: on another machine its searches are still the same."""

    bench: Lessons
    plan: SearchPlan

    def prices(self, c: SearchSettings) -> Priced:
        """The price list of a search: in bytes of a bundle and in milliseconds of an answer, else as it is counted."""
        space, n_items = SPACES[c.space], self.bench.split.train.n_items
        most = None if c.budget is None else Budget.parse(c.budget).most
        if _of(c) not in ("latency", "bytes"):
            return Priced(prices(c, space, n_items)[0], most, 0.0)
        cells, about = self.bench.cells, self._about(c)
        with cells.claim("prices", about, wait=True):
            done: dict[str, Any] | None = cells.get("prices", about)
            if done is None:
                self.bench.listener.begin("Measuring what a student costs")
                began = perf_counter()
                costs = prices(c, space, n_items)[0]
                cheapest = min(
                    zip(costs.operators, space.operators, strict=True), key=lambda one: (one[0], one[1].reads)
                )
                rows = [[cheapest[1].name] * len(space.edges)]
                plain = Design.of(space, rows, width=c.frame.dim, depth=c.cells, exit=c.depth)
                of_cells = costs.of(plain, space) - costs.fixed
                costs = replace(costs, fixed=max(0.0, self.takes(c, plain) - of_cells))
                done = {"costs": asdict(costs), "seconds": perf_counter() - began}
                cells.put("prices", about, done)
        table: dict[str, Any] = done["costs"]
        costs = Costs(table["unit"], tuple(table["operators"]), table["cell"], table["fixed"], table["digest"])
        return Priced(costs, most, done["seconds"])

    def takes(self, c: SearchSettings, design: Design) -> float:
        """What a student of that design takes: bytes of its bundle, milliseconds of an answer (p50); measured once."""
        about = self._about(c) | {"operators": design.operators, "exit": design.exit}
        done = self.bench.cells.get("takes", about)
        if done is None:
            student, of = self._untrained(c, design), _of(c)
            done = {of: float(weighed(self.bench, student)) if of == "bytes" else self._answers(student)}
            self.bench.cells.put("takes", about, done)
        return done[_of(c)]

    def keeping(self, c: SearchSettings, found: Found) -> Design:
        """The best design of a search that is found to keep its budget; the one that takes least where none does.

        What one takes says how far the list is off, by a share of what is not empty cells: the next has to keep the
        budget by as much less, and by the square of that share, its fourth power, ... where that is not enough.
        """
        most, costs = None if c.budget is None else Budget.parse(c.budget).most, found.costs
        if most is None or _of(c) not in ("latency", "bytes"):
            return found.design
        took: list[tuple[float, Design]] = []
        design: Design | None = found.design
        while design is not None and all(design != each for _, each in took):
            taken = self.takes(c, design)
            if taken <= most:
                return design
            empty = costs.fixed + design.depth * costs.cell
            share = max(0.0, (most - empty) / (taken - empty)) ** 2 ** len(took)
            took.append((taken, design))
            design = found.under(empty + (costs.of(design, SPACES[c.space]) - empty) * share)
        least, design = min(took, key=lambda each: each[0])
        tried = f"{len(took)} designs were" if len(took) > 1 else "One design was"
        said = f"{tried} measured, and the least takes {figure(least, costs.unit)}"
        self.bench.listener.say(f"No design keeps the {held_to(c)}: {said}.")
        return design

    def _untrained(self, c: SearchSettings, design: Design) -> Trained:
        """The student before its first step, with what its bundle will say of it."""
        training = training_of(c, self.plan.retrain).model_copy(update={"epochs": 0, "device": "cpu"})
        student = fit(
            "cells",
            self.bench.split.train,
            settings=of_design(design, c.frame).model_dump(mode="json"),
            training=training,
            seed=self.bench.seed,
            echo=None,
        )
        if not self.plan.retrain.distilled:
            return student
        method = {"name": "adarec", **c.distillation.model_dump(mode="json")}
        return replace(student, method="adarec", settings={**student.settings, "method": method})

    def _answers(self, student: Trained) -> float:
        held = self.bench.split.test  # no figure of quality: users, and what their lists leave out
        model = student.model
        assert isinstance(model, Cells)  # noqa: S101 - it is of a design
        histories = held.histories or self.bench.split.train.histories()
        found = answers({"": model}, histories, held.queries, exclude=held.seen, seconds=_TIMED)
        return found[""].latency.p50_ms

    def _about(self, c: SearchSettings) -> dict[str, Any]:
        return {
            "data": self.bench.data_digest,
            "of": _of(c),
            "search": c.model_dump(mode="json", exclude={"budget", "price", "price_weight"}),
            "retrain": self.plan.retrain.model_dump(mode="json"),
            "metrics": self.bench.run.evaluate.metrics,
            "seed": self.bench.seed,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a student keeps its budget, and how that is said."""

    kept: bool
    said: str


def verdict(
    budget: Budget,
    costs: Costs,
    cost: float,
    *,
    took: float | None,
    chosen: float | None,
    bundled: float | None = None,
) -> Verdict:
    """Whether what was shipped keeps the budget.

    Args:
        budget: what was asked.
        costs: the price list.
        cost: of the design, by the list.
        took: what was measured of the trained student; None where the list is exact.
        chosen: what was measured of the design when it was chosen, before its training; None likewise.
        bundled: milliseconds of the bundle in onnxruntime, of a budget of latency, which has to keep it too; None where
            it has no encoder.
    """
    said = f"Held to a budget of {asked(budget)}: by the price list it costs {figure(cost, costs.unit)}"
    if took is not None:
        where = "its bundle has" if budget.of == "bytes" else "measured here, from a history to a list,"
        said += f"; {where} {figure(took, costs.unit)}"
    if bundled is not None:
        said += f", its bundle in onnxruntime {figure(bundled, costs.unit)}"
    kept = max(cost if took is None else took, bundled or 0.0) <= budget.most
    if kept:
        said += ", which keeps it"
    elif chosen is not None and chosen <= budget.most:
        said += f", which is more; when it was chosen it took {figure(chosen, costs.unit)}"
    else:
        said += ", which is more: nothing that was tried keeps it"
    return Verdict(kept, f"{said}.")


def held_to(c: SearchSettings) -> str:
    """What a search is held to: "budget of 2.0 ms", or "price weight 0.1"."""
    return f"price weight {c.price_weight:g}" if c.budget is None else f"budget of {asked(Budget.parse(c.budget))}"


def _of(c: SearchSettings) -> str:
    """What its price list is of."""
    return c.price if c.budget is None else Budget.parse(c.budget).of
