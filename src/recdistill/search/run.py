"""The search: a supernet and its architecture trained by the one loop, the derived student scored after each epoch.

Chen et al., AdaRec, arXiv:2107.07173: `(1 - g) CE + g KD + b price`. On one level (official code) weights and alpha
learn from the same backward pass; on two (Liu et al., DARTS, ICLR 2019, arXiv:1806.09055, first order) alpha learns
from users of its own, in steps dealt among those of the weights.

Letters: C width, T time, I items.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import recdistill
from recdistill import rng
from recdistill.data.candidates import Candidates
from recdistill.errors import UsageError, problem
from recdistill.evaluation.evaluate import evaluate
from recdistill.knowledge.view import fingerprint_of
from recdistill.methods.adarec import distillation, remember
from recdistill.objective import Objective, Pass
from recdistill.runtime import Runtime
from recdistill.search.batches import PartBatches
from recdistill.search.budget import Budget, within
from recdistill.search.controls import always
from recdistill.search.cost import FROZEN, Costs, Shape, counted, published
from recdistill.search.derive import Design, derive, reestimate
from recdistill.search.judge import allowed, loss
from recdistill.search.latency import measured
from recdistill.search.model import Supernet
from recdistill.search.price import Lagrangian, Price
from recdistill.search.refine import refine
from recdistill.search.sampling import Architecture, annealed
from recdistill.search.space import SPACES
from recdistill.terms.base import FromInteractions
from recdistill.training.stop import Stop
from recdistill.training.trainer import Group, Keep, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from recdistill.clock import Clock, Schedule
    from recdistill.data.interactions import HeldOut, Interactions
    from recdistill.knowledge.view import Knows
    from recdistill.objective import Term
    from recdistill.search.batches import Part
    from recdistill.search.latency import Timer
    from recdistill.search.model import Cells
    from recdistill.search.refine import Tried
    from recdistill.search.settings import SearchSettings
    from recdistill.search.space import Space
    from recdistill.training.watch import Report, Watch

__all__ = ["Found", "prices", "search", "shares"]


@dataclass(frozen=True, eq=False)
class Found:
    """What a search came to."""

    design: Design
    """The cells: the derived ones, refined."""
    supernet: Supernet
    """At the epoch whose derived student was best."""
    report: Report
    """Every epoch's losses by term, and metrics of the derived student; "entropy" (nats, of alpha, mean over edges)
    and "cost" (of the derived student) stand among them."""
    settings: SearchSettings
    seed: int
    costs: Costs
    """The price list."""
    cost: float
    """Of the design, in `costs.unit`."""
    derived: Design
    """The arg-max of alpha, from which `design` was refined."""
    tried: tuple[Tried, ...]
    """What the refinement scored, best first; empty where there was none."""
    price_seconds: float
    """What the price list took; next to nothing unless it was measured here."""
    refine_seconds: float
    """What the refinement took; `report.seconds` are those of training and validation."""
    objective: Objective = field(repr=False)
    """With its terms as they were after the last epoch."""
    _score: Callable[[Design], dict[str, float]] = field(repr=False)

    @property
    def seconds(self) -> float:
        """What the whole search took."""
        return self.price_seconds + self.report.seconds + self.refine_seconds

    def under(self, most: float) -> Design | None:
        """The best design that costs at most `most`: of what was tried, else the likeliest; None if none does."""
        found = next((each.design for each in self.tried if each.cost <= most), None)
        if found is None:
            of = self.supernet.architecture
            try:
                found = derive(of, width=self.design.width, seed=self.seed, choice=within(of, self.costs, most))
            except UsageError:
                return None
        return found.model_copy(update={"fingerprints": self.design.fingerprints})

    def student(self, design: Design | None = None) -> Cells:
        """The derived student, or another design, with the supernet's weights and norms as they are there."""
        return self.supernet.derived(self.design if design is None else design)

    def score(self, design: Design | None = None) -> dict[str, float]:
        """Validation metrics of a design with the supernet's weights, its norms estimated anew."""
        return self._score(self.design if design is None else design)


def search(
    teacher: Knows | None,
    train: Interactions,
    settings: SearchSettings,
    *,
    valid: HeldOut,
    candidates: Candidates | None = None,
    seed: int = 7,
    checkpoint: Path | None = None,
    watch: Sequence[Watch] = (),
    priced: tuple[Costs, float | None] | None = None,
    latencies: Path | None = None,
    timer: Timer | None = None,
) -> Found:
    """Find the cells of a student.

    Args:
        teacher: who is distilled; None where the weight of distillation is 0.
        train: the interactions to learn from.
        settings: how.
        valid: held-out data, which chooses the epoch.
        candidates: the recorded negatives of a sampled protocol.
        seed: of weights, alpha, samples, order.
        checkpoint: a file; a search that is killed and started again with it ends bit-identical on a CPU. Weights,
            alpha, both optimisers, the masses of layers and the multiplier of a budget are in it; the temperature is a
            function of the epoch, which is too.
        watch: told of every epoch.
        priced: the price list, and the budget in its unit or None; as `prices` has them when None.
        latencies: the folder of latency tables, see `latency.measured`.
        timer: what times, see `latency.measured`.

    Raises:
        UsageError: the space leaks, the teacher is missing, or no architecture keeps the budget.
        MissingKnowledge: the teacher has no states or scores.
    """
    c, runtime = settings, Runtime.of(settings.device)
    space = SPACES[c.space]
    if c.frame.leak == "refuse":
        space.check(c.frame.scored)
    if teacher is None and c.distillation.weight > 0:
        remedy = "Give a teacher, or set the weight of `distillation` to 0"
        raise UsageError(problem("A search that distils needs a teacher", remedy=remedy))
    began = perf_counter()
    costs, most = prices(c, space, train.n_items, latencies=latencies, timer=timer) if priced is None else priced
    price_seconds = perf_counter() - began
    t = c.temperature
    tau = annealed(t.start, t.factor, t.period, t.floor, lag=c.warm_up)
    architecture = Architecture(
        space, cells=c.cells, temperature=tau, shared=c.shared, depth=c.depth, seed=rng.key(seed, "architecture")
    )
    if most is not None:
        within(architecture, costs, most)  # or say now that none does
    net = Supernet(train.histories(), train.n_items, architecture, c.frame, seed=rng.key(seed, "weights"))
    net.to(runtime.device)

    def batches(part: Part) -> PartBatches:
        return PartBatches(
            train,
            length=c.frame.length,
            size=c.batch,
            part=part,
            share=c.share,
            scored=c.frame.scored,
            negatives=c.negatives,
            every=c.frame.every,
            seed=seed,
            device=runtime.device,
        )

    def design() -> Design:
        if most is None:
            return derive(architecture, width=c.frame.dim, seed=seed)
        choice = within(architecture, costs, most)
        return derive(architecture, width=c.frame.dim, seed=seed, choice=choice)

    every = batches("all")
    if teacher is not None and c.distillation.weight > 0:
        remember(teacher, every, most=c.distillation.memory)

    def estimated(of: Design) -> Cells:
        student = net.derived(of)

        def run(history: Tensor) -> object:  # whole batches, whatever their lengths
            return student.layers(student.embedded(history), history != -1, both_ways=False)

        some = (batch.query.history for batch in every.epoch(0))
        reestimate(student, run, [each for each in islice(some, c.estimate) if each is not None])
        return student

    def score(of: Design, metrics: tuple[str, ...] = c.metrics) -> dict[str, float]:
        return evaluate(estimated(of).ranker(), valid, metrics, protocol=c.protocol, candidates=candidates).means

    def validate() -> dict[str, float]:
        here = design()
        about = {"entropy": float(architecture.entropy().mean()), "cost": costs.of(here, space)}
        return {**score(here), **about}

    objective = _objective(c, net, teacher, costs=costs, most=most, seed=seed)
    passes = _passes(c, net, objective, teacher, batches=batches, every=every)
    alpha = [p for p in architecture.parameters() if p.requires_grad]
    keep = None
    if checkpoint is not None:
        about = _run(c, seed, train=train, valid=valid, candidates=candidates, teacher=teacher, costs=costs)
        keep = Keep(checkpoint, about)
    report = fit(
        net,
        passes,
        epochs=c.epochs,
        optimise=_adamw(c.lr, c.weight_decay),
        groups={"alpha": Group(alpha, _adamw(c.alpha_lr, c.alpha_weight_decay))},
        runtime=runtime,
        stop=Stop(validate, c.metrics, patience=c.patience, every=c.every, begins=min(c.warm_up, c.epochs - c.every)),
        watch=watch,
        keep=keep,
    )
    fingerprints = {"data": _data(train, valid, candidates).hexdigest(), "prices": costs.digest}
    derived = design()
    derived = derived.model_copy(update={"fingerprints": {key: value for key, value in fingerprints.items() if value}})
    by, began = c.refine.metric or c.metrics[0], perf_counter()

    def judged(of: Design) -> float:
        if by == "objective":
            return -loss(estimated(of).ranker(), of, valid, settings=c, costs=costs, space=space)
        return score(of, (by,))[by]

    tried = refine(
        derived,
        judged,
        space=space,
        costs=costs,
        settings=c.refine,
        most=allowed(architecture, costs, dearer=c.refine.dearer) if most is None else most,
        beside=always(space),
        seed=rng.key(seed, "refine"),
    )
    best = tried[0].design.model_copy(update={"fingerprints": derived.fingerprints}) if tried else derived
    return Found(
        design=best,
        supernet=net,
        report=report,
        settings=c,
        seed=seed,
        costs=costs,
        cost=costs.of(best, space),
        derived=derived,
        tried=tried,
        price_seconds=price_seconds,
        refine_seconds=perf_counter() - began,
        objective=objective,
        _score=score,
    )


def prices(
    c: SearchSettings,
    space: Space,
    n_items: int,
    *,
    latencies: Path | None = None,
    timer: Timer | None = None,
) -> tuple[Costs, float | None]:
    """The price list of a search, and its budget in the list's unit or None.

    Latency is of the CPU in one thread, wherever the search is trained: there students answer (`recipes.answers`).
    """
    f = c.frame
    shape = Shape(
        width=f.dim,
        length=f.length,
        items=n_items,
        tied=f.tied,
        positions=f.positions,
        norm=f.norm,
        bias=f.bias,
        exit=c.depth,
    )
    budget = None if c.budget is None else Budget.parse(c.budget)
    what = c.price if budget is None else budget.of
    match what:
        case "published":
            costs = published(space, shape)
        case "frozen":
            costs = published(space, FROZEN)
        case "latency":
            options: dict[str, Any] = {} if timer is None else {"timer": timer}
            costs = measured(space, shape, keep=latencies, **options)
        case "macs" | "params" | "bytes":
            costs = counted(space, shape, what)
    return costs, None if budget is None else budget.most


def shares(losses: Mapping[str, float]) -> dict[str, float]:
    """Each term's share of an epoch's loss, by absolute value, in [0, 1]: so a term of 0.3 % is seen."""
    whole = sum(abs(value) for value in losses.values())
    return {name: abs(value) / whole if whole else 0.0 for name, value in losses.items()}


def _objective(
    c: SearchSettings, net: Supernet, teacher: Knows | None, *, costs: Costs, most: float | None, seed: int
) -> Objective:
    terms: dict[str, tuple[float | Schedule, Term]] = {
        "base": (1 - c.distillation.weight, FromInteractions(c.loss, how="mean"))
    }
    if teacher is not None and c.distillation.weight > 0:
        terms |= distillation(
            c.distillation, student=net, teacher=teacher, how="mean", seed=rng.key(seed, "terms"), layers=c.cells
        )

    def warm(weight: float) -> Schedule:
        return lambda clock: weight if clock.epoch >= c.warm_up else 0.0

    if most is not None:
        # on two levels most steps are of weights, to which alpha cannot answer
        step = 0.1 * (c.share if c.level == "bi" else 1.0)
        terms["budget"] = (warm(1.0), Lagrangian(costs, most, step=step, begins=c.warm_up))
    elif c.price_weight:
        terms["price"] = (warm(c.price_weight), Price(costs, chances=c.chances))
    return Objective(**terms)


def _passes(
    c: SearchSettings,
    net: Supernet,
    objective: Objective,
    teacher: Knows | None,
    *,
    batches: Callable[[Part], PartBatches],
    every: PartBatches,
) -> list[Pass]:
    def sampling(paths: int) -> Callable[[Clock], None]:
        return lambda clock: net.sample(clock, paths=paths if clock.epoch >= c.warm_up else 1)

    teacher = teacher if c.distillation.weight > 0 else None
    paths, begins = c.paths, {"alpha": c.warm_up}
    if c.level == "single":
        both = ("weights", "alpha")
        return [Pass("search", every, objective, teacher, updates=both, begins=begins, begin=sampling(paths))]
    return [
        Pass("weights", batches("weights"), objective, teacher, begin=sampling(1)),
        Pass("alpha", batches("alpha"), objective, teacher, updates=("alpha",), begins=begins, begin=sampling(paths)),
    ]


def _adamw(lr: float, weight_decay: float) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    """AdamW; what was not sampled has no gradient, and so neither decays nor moves."""
    return lambda parameters: torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)


def _data(train: Interactions, valid: HeldOut, candidates: Candidates | None) -> Any:  # noqa: ANN401 - hashlib's
    digest = hashlib.blake2b(digest_size=16)
    histories = train.histories()
    for array in (histories.items, histories.indptr, valid.targets.indptr, valid.targets.indices):
        digest.update(np.ascontiguousarray(array).tobytes())
    if candidates is not None:
        digest.update(np.ascontiguousarray(candidates.items).tobytes())
    return digest


def _run(
    c: SearchSettings,
    seed: int,
    *,
    train: Interactions,
    valid: HeldOut,
    candidates: Candidates | None,
    teacher: Knows | None,
    costs: Costs,
) -> str:
    """A digest of all that a search's result depends on."""
    digest = _data(train, valid, candidates)
    about = [c.model_dump(mode="json"), seed, train.n_items, recdistill.__version__, costs.operators, costs.fixed]
    digest.update(json.dumps(about, sort_keys=True).encode())
    if teacher is not None:
        digest.update(fingerprint_of(teacher).encode())
    return digest.hexdigest()
