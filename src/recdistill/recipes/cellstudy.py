"""One teacher, searches for a student's cells, and everything that has to be trained beside what they find.

Everything that is finished lies under the run's folder as in `recipes.study`; a search too: its checkpoint while it
runs, then a cell that holds the design and how it came about.

Letters: G architectures (1 or S), E edges, O operators.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from recdistill import bundle, rng
from recdistill.clock import constant
from recdistill.errors import UsageError, problem
from recdistill.models.sequential import Sequential
from recdistill.query import Query
from recdistill.recipes.answers import Answers, answers
from recdistill.recipes.bench import Bench, curve
from recdistill.recipes.cells import digest
from recdistill.recipes.lessons import Lesson
from recdistill.recipes.onnx_times import times_of_bundles
from recdistill.recipes.pricing import Priced, Pricing, held_to
from recdistill.recipes.search import inherited, training_of
from recdistill.recipes.train import known
from recdistill.report.page import Curve
from recdistill.search.budget import Budget, within
from recdistill.search.controls import always, apart, random_of_price
from recdistill.search.derive import Design, named
from recdistill.search.latency import device_of
from recdistill.search.model import Cells, of_design
from recdistill.search.run import Found
from recdistill.search.run import search as run_search
from recdistill.search.sampling import Architecture
from recdistill.search.space import SPACES
from recdistill.terms.layer_match import LayerMatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from recdistill.recipes.bench import Result
    from recdistill.recipes.searchfile import SearchPlan, SearchRun
    from recdistill.recipes.trained import Trained
    from recdistill.search.cost import Costs
    from recdistill.search.settings import SearchSettings
    from recdistill.search.space import Space

__all__ = ["CellStudy", "Searched"]

_NEAR = 0.1  # of the price of cells: nearer than that they cost the same
_LOOKED_AT = 256  # histories, of a picture of who learned from whom
_TIMED = 2.0  # seconds for each system's single answers, and again for its tables


@dataclass(frozen=True)
class Refined:
    """What became of the cells that alpha alone says."""

    tried: int
    """Designs that were scored, the derived one among them."""
    by: str
    """The validation metric, with the supernet's weights."""
    derived: float
    """Of what alpha says."""
    kept: float
    """Of the design: the best, or the best that keeps the budget."""


@dataclass(frozen=True)
class Searched:
    """A finished search, as it is kept."""

    settings: SearchSettings
    design: Design
    costs: Costs
    """The price list."""
    most: float | None
    """The budget, in its unit."""
    cost: float
    """Of the design, in `costs.unit`."""
    chances: Sequence[Sequence[Sequence[float]]]
    """G x E x O probabilities of the operators at the epoch that was kept."""
    curve: Curve
    """Loss terms, and on validation data the derived student's metrics, "entropy" and "cost"."""
    seconds: float
    """Of the whole search: its price list, training and validation, what was tried after."""
    refined: Refined | None
    """What was tried beside what alpha says; None where nothing was, or the design is none of it."""
    mapping: Sequence[Sequence[float]]
    """S x T shares of what each cell learned of the teacher's layers, in [0, 1]; empty without hidden layers."""

    @property
    def asked(self) -> str:
        """What it was held to."""
        return held_to(self.settings)


@dataclass(frozen=True)
class CellStudy(Bench):
    """A run file with a [search], read and checked; work begins when something is asked for."""

    run: SearchRun
    plan: SearchPlan

    @property
    def space(self) -> Space:
        """Where cells are looked for."""
        return SPACES[self.plan.search.space]

    def check(self) -> None:
        """Say before any training what could only end in an error.

        Raises:
            UsageError: no architecture keeps the budget; the teacher is not sequential; nothing is held out.
        """
        if not len(self.split.valid.queries):
            remedy = "Hold some out: split = 'leave-last-out', or valid above 0"
            raise UsageError(problem("A search needs validation data, and there are none", remedy=remedy))
        for c in self.asked:
            one = self._prices(c)
            if one.most is not None:
                some = Architecture(self.space, cells=c.cells, temperature=constant(1.0), depth=c.depth)
                within(some, one.costs, one.most)

    @cached_property
    def asked(self) -> list[SearchSettings]:
        """The searches: that of the file first, then one for each other price weight."""
        first = self.plan.search
        what = first.price if first.budget is None else Budget.parse(first.budget).of
        others = [
            first.model_copy(update={"budget": None, "price": what, "price_weight": weight})
            for weight in dict.fromkeys(self.run.search.pareto)
        ]
        return [first, *(each for each in others if each != first)]

    def search(self, c: SearchSettings) -> Searched:
        """A search, done once; with a budget of bytes or latency its design was measured to keep it, if any does."""
        name, priced, about = self._name(c), self._prices(c), self._about_search(c)
        with self.cells.claim(name, about, wait=True):
            done: dict[str, Any] | None = self.cells.get(name, about)
            if done is None:
                found = self.found(c)
                design = self.pricing.keeping(c, found)
                done = {
                    "design": json.loads(design.to_json()),
                    "cost": found.costs.of(design, SPACES[c.space]),
                    "chances": found.supernet.architecture.probabilities().tolist(),
                    "curve": json.dumps(asdict(curve(found.report))),  # as text, which keeps the order of terms
                    "seconds": priced.seconds + found.seconds,
                    "refined": _refined(found, design),
                    "mapping": self._mapping(found),
                }
                if self.plan.retrain.weights == "inherited":
                    done["weights"] = inherited(found, self.cells.root).name
                self.cells.put(name, about, done)
        return Searched(
            c,
            Design.from_json(json.dumps(done["design"])),
            priced.costs,
            priced.most,
            done["cost"],
            done["chances"],
            Curve(**json.loads(done["curve"])),
            done["seconds"],
            None if done["refined"] is None else Refined(**done["refined"]),
            done["mapping"],
        )

    def found(self, c: SearchSettings) -> Found:
        """The supernet of a search too: read from its checkpoint where it is finished, and refined again."""
        about = self._about_search(c)
        key = digest(about)
        if key not in self._found:
            name = self._name(c)
            teacher = known(self.trained_teacher, self.split.train) if c.distillation.weight > 0 else None  # said first
            common = self.common(name, about, c.protocol, stage=f"Searching cells, {held_to(c)}")
            common.pop("echo")  # a search has nothing to say that its `train` does not
            priced = self._prices(c)
            self._found[key] = run_search(teacher, self.split.train, c, priced=(priced.costs, priced.most), **common)
        return self._found[key]

    def searched(self, name: str, of: Searched, *, distilled: bool | None = None) -> Result:
        """What a search found, trained.

        Args:
            name: of the row, the bundle and the log.
            of: the search.
            distilled: whether the teacher is asked; as the run file says when None.
        """
        return self.design(name, of.design, of.settings, distilled=distilled)

    def design(self, name: str, design: Design, c: SearchSettings, *, distilled: bool | None = None) -> Result:
        """A design, trained as the run file says beside what the search `c` found; see `searched`."""
        start = None
        if self.plan.retrain.weights == "inherited":
            start = self._weights(c)
        settings = of_design(design, c.frame, start=start).model_dump(mode="json")
        return self._small(name, "cells", settings, c, distilled=distilled)

    def hand_made(self, name: str) -> Result:
        """The small model made by hand, trained likewise."""
        settings = self.plan.student_settings.model_dump(mode="json")
        return self._small(name, self.plan.student, settings, self.plan.search, distilled=None)

    def controls(self, of: Searched) -> dict[str, Design]:
        """The cells beside what a search found: of every table, by name, and random ones of its price."""
        d, c = of.design, self.run.search
        names = (*always(self.space), *c.controls)
        beside = {name: named(name, self.space, width=d.width, depth=d.depth) for name in names}
        beside = {name: each.model_copy(update={"exit": d.exit}) for name, each in beside.items()}
        if not c.random:
            return beside
        drawn = random_of_price(self.space, of.costs, d, n=c.random, seed=rng.key(self.seed, "controls") % 9973)
        cells, away = of.costs.of(d, self.space) - of.costs.fixed, apart(self.space, of.costs, d, drawn.values())
        if away > _NEAR * abs(cells):
            unit = of.costs.unit
            self.listener.say(
                f"Random cells cost what the searched ones do, {cells:,.4g} {unit}, to {away:,.4g} {unit}."
            )
        return beside | {f"random-{at}": each for at, each in enumerate(drawn.values(), 1)}

    def scored(self, of: Searched, designs: Mapping[str, Design]) -> dict[str, float]:
        """The first validation metric of designs with the supernet's weights of a search; each is asked once."""
        c, cells = of.settings, self.cells
        metric, scores = c.metrics[0], dict[str, float]()
        for name, design in designs.items():
            about = self._about_search(c) | {"operators": design.operators, "exit": design.exit}
            if (done := cells.get("inherited", about)) is None:
                done = {metric: self.found(c).score(design)[metric]}
                cells.put("inherited", about, done)
            scores[name] = done[metric]
        return scores

    def timing(self, names: Sequence[str]) -> dict[str, Answers]:
        """Milliseconds from a history to a list, all systems in turns; measured once on a machine."""
        about = {name: self._labels[name] for name in names} | {"here": device_of(torch.device("cpu"))}
        with self.cells.claim("timing", about, wait=True):
            done = self.cells.get("timing", about)
            if done is None:
                models = {name: self._model(name) for name in names}
                self.listener.begin("Timing answers, one history after the other")
                held = self.split.test
                histories = held.histories or self.split.train.histories()
                measured = answers(models, histories, held.queries, exclude=held.seen, seconds=_TIMED)
                done = {name: each.plain() for name, each in measured.items()}
                self.cells.put("timing", about, done)
        return {name: Answers.of(done[name]) for name in names}

    def bundled(self, name: str) -> float | None:
        """Milliseconds from a history to a list of a student's bundle, in onnxruntime; None where it has no encoder."""
        path = self.run.output.dir / "bundles" / self.label(name)
        if bundle.open(path).encoder is None:
            return None
        about = {name: self._labels[name], "here": device_of(torch.device("cpu"))}
        with self.cells.claim("bundled", about, wait=True):
            done = self.cells.get("bundled", about)
            if done is None:
                times = times_of_bundles({name: path}, batches=(1,), length=self.plan.search.frame.length)
                done = {"ms": times[name]["1"]["end to end"]}
                self.cells.put("bundled", about, done)
        return done["ms"]

    def bodies(self, names: Sequence[str]) -> dict[str, int]:
        """Parameters between the embedding and the output of each system."""
        about = {name: self._labels[name] for name in names} | {"what": "body"}
        done = self.cells.get("bodies", about)
        if done is None:
            done = {name: self._model(name).n_body for name in names}
            self.cells.put("bodies", about, done)
        return done

    def student(self, name: str) -> Cells:
        """A trained student that is made of cells; read from its checkpoint where it is finished."""
        model = self._model(name)
        assert isinstance(model, Cells)  # noqa: S101 - asked only of those
        return model

    # helpers

    def _small(
        self, name: str, model: str, settings: dict[str, Any], c: SearchSettings, *, distilled: bool | None
    ) -> Result:
        how = self.plan.retrain
        taught = how.distilled if distilled is None else distilled
        lesson = Lesson(
            bench=self,
            name=name,
            model=model,
            settings=settings,
            method="adarec" if taught else "plain",
            how=c.distillation.model_dump(mode="json") if taught else {},
            training=training_of(c, how),
        )
        result = self.learned(lesson)
        self._labels[name] = digest([model, settings, taught, training_of(c, how).model_dump(mode="json"), self.seed])
        return result

    @cached_property
    def _labels(self) -> dict[str, str]:
        """Digests of what was trained, by name."""
        return {"teacher": digest(self.about_teacher)}

    @cached_property
    def _found(self) -> dict[str, Found]:
        return {}

    def _model(self, name: str) -> Sequential:
        trained: Trained = self.trained_teacher if name == "teacher" else self._students[name].trained
        assert isinstance(trained.model, Sequential)  # noqa: S101 - `resolve` has seen to it
        return trained.model

    def _mapping(self, found: Found) -> list[list[float]]:
        term = dict(found.objective.named_terms()).get("hidden")
        if not isinstance(term, LayerMatch):
            return []
        student, train = found.student(), self.split.train
        rows = torch.arange(min(_LOOKED_AT, train.n_users), device=student.item.device)
        history = student.history_of(rows)
        query = Query(rows, history=history, at=(history != -1).nonzero())
        teacher = known(self.trained_teacher, train)
        assert teacher is not None  # noqa: S101 - the term is there
        with torch.no_grad():
            plan = term.mapping(student.view(query), teacher.view(query), query)  # (S, T)
        return (plan / plan.sum(1, keepdim=True)).tolist()

    def _weights(self, c: SearchSettings) -> Path:
        """The supernet's weights, as a file; an earlier release kept none with the search."""
        done = self.cells.get(self._name(c), self._about_search(c)) or {}
        path = self.cells.root / done.get("weights", "")
        return path if path.is_file() else inherited(self.found(c), self.cells.root)

    @cached_property
    def pricing(self) -> Pricing:
        """What students cost."""
        return Pricing(self, self.plan)

    def _prices(self, c: SearchSettings) -> Priced:
        key = c.model_dump_json()
        if key not in self._priced:
            self._priced[key] = self.pricing.prices(c)
        return self._priced[key]

    @cached_property
    def _priced(self) -> dict[str, Priced]:
        return {}

    def _about_search(self, c: SearchSettings) -> dict[str, Any]:
        candidates, costs = self.candidates(c.protocol), self._prices(c).costs
        return {
            "data": self.data_digest,
            "search": c.model_dump(mode="json"),
            "prices": [*costs.operators, costs.cell, costs.fixed],
            "teacher": self.about_teacher,
            "seed": self.seed,
            "candidates": None if candidates is None else candidates.digest,
        }

    @staticmethod
    def _name(c: SearchSettings) -> str:
        asked = f"{c.price_weight:g}" if c.budget is None else re.sub(r"\W+", "", str(Budget.parse(c.budget)))
        return f"search-{asked}"


def _refined(found: Found, design: Design) -> dict[str, Any] | None:
    scores = {each.design.operators: each.score for each in found.tried}
    if design.operators not in scores:
        return None
    by = found.settings.refine.metric or found.settings.metrics[0]
    return asdict(Refined(len(found.tried), by, scores[found.derived.operators], scores[design.operators]))
