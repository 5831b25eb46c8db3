"""What a student of a size costs before it is trained: bytes of its bundle, milliseconds of an answer, parameters.

A bundle is the model's tables, whose shapes follow from the model, its width, the users and the items, and beside them
what does not depend on the width: ids, what users have seen, what is popular, the manifest. So

    bytes(d) = 4 n(d) + rest

with n(d) the numbers of a model of width d as it is initialised, and `rest` weighed once, on the written bundle of an
untrained student. What a sequential student reads histories with grows with its width: its bundle is written for each.
Latency is that of the card (median of one user's top-10), asked of the untrained student: what an answer takes does not
depend on what was learned.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.data.interactions import Interactions
from recdistill.errors import RecdistillError, UsageError, problem
from recdistill.evaluation.card import bytes_on_disk, environment
from recdistill.evaluation.latency import measure
from recdistill.ids import IdTable
from recdistill.models import MODELS
from recdistill.models.sequential import Sequential
from recdistill.recipes.train import fit
from recdistill.report.words import megabytes, milliseconds
from recdistill.settings import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recdistill.recipes.lessons import Lessons
    from recdistill.recipes.trained import Trained
    from recdistill.search.budget import Budget

__all__ = ["MANIFEST", "Cost", "Scales", "asked", "ladder", "named", "too_small", "weighed"]

MANIFEST = 2048
"""Bytes left for what a bundle says of its training: settings, metrics, papers. The text differs by the method; what is
shipped is weighed with its own before it is chosen, see `weighed`."""
_SECONDS = 0.4  # for single answers of one size, and again for tables
_LADDER = (1.0, 0.7, 0.5, 0.35, 0.25)
"""Shares of the largest width that keeps the budget: a front needs smaller ones, an octave has two steps."""
_WIDEST = 512
"""The widest student that is looked at where the teacher's width is not known."""
_MEASURED = 0.12345678901234567  # as long a number as a metric is
_LINEAGE = {"run": "0" * 16, "data": "0" * 32, "seen": "train, valid and test"}  # as a run says it
_ROUND = 64
"""Bytes by which two manifests with the same keys differ at most, as their numbers have more or fewer digits."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a student of one width costs."""

    dim: int
    bytes: int
    """Of its bundle, to within `MANIFEST`, which is counted."""
    parameters: int
    """Numbers that are served."""
    p50_ms: float | None = None
    """Median of one user's top-10 on this machine; None where it was not measured."""

    def of(self, budget: Budget) -> float:
        """What counts, in the budget's unit: bytes, milliseconds or parameters."""
        if budget.of == "latency":
            assert self.p50_ms is not None  # noqa: S101 - measured where the budget is of it
            return self.p50_ms
        return float(self.bytes if budget.of == "bytes" else self.parameters)


@dataclass(frozen=True)
class Scales:
    """Weighs students of one model on one log; what is weighed is kept with the run."""

    bench: Lessons
    model: str
    settings: Mapping[str, Any]
    """All of the model's, but for `dim`."""
    timed: bool = False
    """Whether latency is measured."""
    _nets: dict[int, Trained] = field(default_factory=dict[int, "Trained"], repr=False)
    _possible: dict[int, bool] = field(default_factory=dict[int, bool], repr=False)

    def possible(self, dim: int) -> bool:
        """Whether the model takes that width: heads must divide it, for one. Asked of a log of three interactions."""
        if dim not in self._possible:
            entry, tiny = MODELS[self.model], _tiny()
            try:
                settings = parse(entry.settings, {**self.settings, "dim": dim})
                entry.build(settings, tiny.n_users, tiny.n_items, 0, tiny)
            except RecdistillError:
                self._possible[dim] = False
            else:
                self._possible[dim] = True
        return self._possible[dim]

    def down(self, dim: int) -> int:
        """The widest width the model takes that is at most `dim`; the narrowest there is where none is."""
        return next((each for each in range(dim, 0, -1) if self.possible(each)), self.least)

    @cached_property
    def least(self) -> int:
        """The narrowest width the model takes.

        Raises:
            UsageError: it takes none up to 512, whatever else is set.
        """
        found = next((dim for dim in range(1, _WIDEST + 1) if self.possible(dim)), None)
        if found is None:
            what = f"The model {self.model!r} takes no width up to {_WIDEST} with its other settings"
            raise UsageError(problem(what, remedy="Look at its settings in [student]"))
        return found

    def cost(self, dim: int) -> Cost:
        """What a student of that width costs; weighed once."""
        about = self._about | {"dim": dim}
        done = self.bench.cells.get(f"cost-{dim}", about)
        if done is None:
            done = asdict(self._weighed(dim))
            self.bench.cells.put(f"cost-{dim}", about, done)
        return replace(Cost(**done), p50_ms=self.p50(dim) if self.timed else None)

    def least_of(self, dim: int, budget: Budget) -> float:
        """What a student of that width takes at least, in the budget's unit, without writing its bundle."""
        if budget.of == "latency":
            return self.p50(dim)
        return float(self.predicted(dim) if budget.of == "bytes" else self._net(dim).model.n_parameters)

    def p50(self, dim: int) -> float:
        """Median milliseconds of one user's top-10 here; measured once."""
        about = self._about | {"dim": dim, "here": _here()}
        done = self.bench.cells.get(f"latency-{dim}", about)
        if done is None:
            held = self.bench.split.test  # no figure of quality: users, and what their lists leave out
            taken = measure(self._net(dim).ranker(), users=held.queries, exclude=held.seen, seconds=_SECONDS)
            done = {"p50_ms": taken.p50_ms}
            self.bench.cells.put(f"latency-{dim}", about, done)
        return done["p50_ms"]

    def predicted(self, dim: int) -> int:
        """Bytes of its bundle, without writing it; of a sequential student only its tables count."""
        return sum(array.nbytes for array in self._net(dim).model.arrays().values()) + self.rest

    @cached_property
    def rest(self) -> int:
        """Bytes of a bundle that are not the model's tables, those of the narrowest student."""
        tables = sum(array.nbytes for array in self._net(self.least).model.arrays().values())
        return self._written(self.least) - tables + MANIFEST

    def _weighed(self, dim: int) -> Cost:
        net = self._net(dim)
        size = self._written(dim) + MANIFEST if isinstance(net.model, Sequential) else self.predicted(dim)
        return Cost(dim, size, net.model.n_parameters)

    def _net(self, dim: int) -> Trained:
        if dim not in self._nets:
            self._nets.clear()  # one at a time: they may be large
            self._nets[dim] = fit(
                self.model,
                self.bench.split.train,
                settings={**self.settings, "dim": dim},
                training={"epochs": 0, "device": "cpu"},
                seed=self.bench.seed,
                echo=None,
            )
        return self._nets[dim]

    def _written(self, dim: int) -> int:
        return weighed(self.bench, self._net(dim))

    @property
    def _about(self) -> dict[str, Any]:
        return {"data": self.bench.data_digest, "model": {"name": self.model, **self.settings}}


def weighed(bench: Lessons, student: Trained) -> int:
    """Bytes of the bundle a run writes of a student, to within those of its metrics' digits, which are counted."""
    asked_of = bench.run.evaluate.metrics
    with tempfile.TemporaryDirectory(dir=bench.cells.root) as folder:
        path = Path(folder) / "bundle"
        metrics = {f"test {metric}": _MEASURED for metric in asked_of}
        student.save(path, seen=bench.log, lineage=_LINEAGE, metrics=metrics)
        return bytes_on_disk(path) + _ROUND


def ladder(scales: Scales, budget: Budget, *, widest: int | None = None) -> list[Cost]:
    """Students that keep the budget, the widest first: the largest width that does, and shares of it.

    Args:
        scales: what weighs them.
        budget: of bytes, latency or parameters.
        widest: the teacher's width: a student is no wider; 512 where it is not known.

    Raises:
        UsageError: even the narrowest student costs more.
    """
    least, widest = scales.cost(scales.least), scales.down(widest or _WIDEST)
    if least.of(budget) > budget.most:
        raise too_small(scales, budget, least)
    low, high = scales.least, max(widest, scales.least) + 1
    while high - low > 1:  # costs rise with the width
        middle = (low + high) // 2
        fits = scales.least_of(scales.down(middle), budget) <= budget.most
        low, high = (middle, high) if fits else (low, middle)
    low = scales.down(low)
    while scales.cost(low).of(budget) > budget.most:  # with what a sequential student reads histories with
        low = scales.down(max(low - max(low // 8, 1), 1))
    wanted = dict.fromkeys(scales.down(max(int(share * low), 1)) for share in _LADDER)
    return [scales.cost(dim) for dim in wanted]


def too_small(scales: Scales, budget: Budget, least: Cost) -> UsageError:
    """What is said of a budget that no student keeps."""
    what = f"No {scales.model} student keeps the budget of {asked(budget)}: the smallest, of {least.dim} dims, takes "
    what += named(least, budget)
    remedy = f"Give at least {budget.of}={_said(budget, least)}"
    if budget.of == "bytes":
        what += f", of which {megabytes(scales.rest)} are ids, what users have seen and the manifest"
        remedy += ", or drop users and items that have little: data.k_core"
    elif budget.of == "latency":
        remedy += ", or fewer items: data.k_core; `recdistill export` has an approximate search"
    return UsageError(problem(what, remedy=remedy))


def named(cost: Cost, budget: Budget) -> str:
    """What a student costs in the budget's unit, for people: "1.2 MB", "0.43 ms", "20,000 parameters"."""
    return {
        "bytes": megabytes(cost.bytes),
        "latency": milliseconds(cost.p50_ms),
        "params": f"{cost.parameters:,} parameters",
    }[budget.of]


def asked(budget: Budget) -> str:
    """The budget, for people."""
    if budget.of == "params":
        return f"{budget.most:,.0f} parameters"
    if budget.of == "macs":
        return f"{budget.most:,.0f} multiply-adds"
    return megabytes(budget.most) if budget.of == "bytes" else milliseconds(budget.most)


def _said(budget: Budget, least: Cost) -> str:
    cost = least.of(budget)
    if budget.of == "latency":
        return f"{cost * 1.1:.2g}ms"
    return f"{cost:,.0f}B".replace(",", "") if budget.of == "bytes" else f"{cost:.0f}params"


def _tiny() -> Interactions:
    """Two users and three items."""
    ids = IdTable.from_ids(["a", "b"]), IdTable.from_ids(["x", "y", "z"])
    return Interactions(*ids, user=np.array([0, 0, 1], np.int32), item=np.array([0, 1, 2], np.int32))


def _here() -> dict[str, Any]:
    """What a measured latency depends on."""
    found = environment()
    return {"cpu": found.cpu, "numpy": found.numpy, "recdistill": found.recdistill}
