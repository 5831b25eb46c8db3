"""The last step of a search: designs near its own, judged with the supernet's weights on validation data.

Alpha is what gradients made of single edges; how operators do together is asked here. Evolutionary search over a
trained supernet: Guo et al., Single Path One-Shot NAS, ECCV 2020, arXiv:1904.00420. Nothing is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, TypeAdapter, field_validator

from recdistill import rng
from recdistill.evaluation.metrics import MetricName
from recdistill.search.derive import Design, living, named
from recdistill.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from recdistill.search.cost import Costs
    from recdistill.search.space import Space

    Rows = tuple[tuple[str, ...], ...]

__all__ = ["Refine", "Tried", "refine"]

_METRIC = TypeAdapter[str](MetricName)
_TRIES = 200
"""Draws without anything new before there is nothing new."""


class Refine(Settings):
    """How designs are tried after the last epoch."""

    designs: int = Field(default=64, ge=0)
    """How many are scored, the derived one among them; 0 takes the derived one (published)."""
    parents: int = Field(default=8, ge=1)
    """The best so far, of which the next ones come."""
    dearer: float = Field(default=0.1, ge=0)
    """How much more their cells may cost than alpha expects, as a share; a budget is kept in its place."""
    metric: str | None = "ndcg@100"
    """What they are scored by, in validation: a long list tells more about a design than the one that is reported, of
    which most users have nothing. A metric has no exchange rate with nats, so the price counts by `dearer` alone;
    "objective" is the search's own loss without its distillation, price included. None takes the search's first
    metric."""

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str | None) -> str | None:
        return metric if metric in (None, "objective") else _METRIC.validate_python(metric)


@dataclass(frozen=True, slots=True)
class Tried:
    """A design and what the supernet's weights say of it."""

    design: Design
    score: float
    """By the metric of the refinement; of its "objective" less the loss."""
    cost: float
    """In the price list's unit."""


def refine(
    start: Design,
    score: Callable[[Design], float],
    *,
    space: Space,
    costs: Costs,
    settings: Refine,
    most: float,
    beside: Sequence[str] = (),
    seed: int = 0,
) -> tuple[Tried, ...]:
    """Score designs of the depth of `start`, best first; of equal scores the cheaper one, then the earlier.

    After `start` and those of `beside` the rest of the first quarter is drawn at random; then one parent with one or
    two edges drawn anew alternates with two parents mixed edge by edge.

    Args:
        start: the derived design, tried first.
        score: of a design, greater is better.
        space: whose operators are drawn.
        costs: the price list.
        settings: how many.
        most: what a design may cost, in `costs.unit`; `start` may cost more.
        beside: designs by name, tried next where they cost no more.
        seed: of the draws.
    """
    tried: dict[Rows, Tried] = {}
    known = iter([(named(name, space, width=1).operators[0],) * len(start.cells) for name in beside])

    def best() -> list[Tried]:
        return sorted(tried.values(), key=lambda each: (-each.score, each.cost))

    def fits(rows: Rows) -> bool:
        return rows not in tried and costs.of(_design(rows, start, space), space) <= most * (1 + 1e-12)

    for at in range(settings.designs):
        parents = [_rows(each.design) for each in best()[: settings.parents]]
        proposed = _proposed(parents, space, seed=rng.key(seed, "refine", at), random=at < settings.designs // 4)
        rows = next(filter(fits, chain(known, proposed)), None) if at else _rows(start)
        if rows is None:
            break
        design = _design(rows, start, space)
        tried[rows] = Tried(design, score(design), costs.of(design, space))
    return tuple(best())


def _rows(design: Design) -> Rows:
    """(G, E) names: one row for all cells, or one for each."""
    return tuple(tuple(edge.operator for edge in cell) for cell in design.cells)


def _design(rows: Rows, like: Design, space: Space) -> Design:
    return Design.of(space, rows, width=like.width, depth=like.depth, exit=like.exit, seed=like.seed)


def _proposed(parents: list[Rows], space: Space, *, seed: int, random: bool) -> Iterator[Rows]:
    """Designs that may have been seen, or cost too much."""
    for at in range(_TRIES):
        shape = np.array(parents[0]).shape  # (G, E)
        edges = np.arange(int(np.prod(shape)), dtype=np.int64)
        fresh = [space.names[o] for o in rng.integers(rng.key(seed, "operators", at), edges, 1, len(space))[:, 0]]
        one, other = rng.integers(rng.key(seed, "parents", at), edges[:1], 2, len(parents))[0].tolist()
        order = rng.permutation(rng.key(seed, "edges", at), len(edges))
        child = np.array(parents[one], dtype=object).ravel()
        if random:
            child[:] = fresh
        elif at % 2 and len(parents) > 1:
            half = order[: len(edges) // 2]
            child[half] = np.array(parents[other], dtype=object).ravel()[half]
        else:
            changed = order[: 1 + at // 2 % 2]
            child[changed] = np.array(fresh, dtype=object)[changed]
        yield tuple(living(row, space) for row in child.reshape(shape).tolist())
