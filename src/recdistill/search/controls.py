"""The cells that stand beside a searched one in every table: a search that does not beat them has found nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recdistill.errors import UsageError, problem
from recdistill.search.derive import drawn, hand_made, named

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recdistill.search.cost import Costs
    from recdistill.search.derive import Design
    from recdistill.search.space import Space

__all__ = ["always", "apart", "controls", "random_of_price"]

_TRIES = 20_000


def always(space: Space) -> tuple[str, ...]:
    """Names of what stands in every table: nothing on any edge, the input on every edge, and the hand-made cells."""
    return ("all-none", "all-skip", *hand_made(space))


def controls(space: Space, *, width: int, depth: int, random: int = 10) -> dict[str, Design]:
    """The designs of `always`, and `random` cells drawn uniformly, by name."""
    names = [*always(space), *(f"random-{seed}" for seed in range(random))]
    return {name: named(name, space, width=width, depth=depth) for name in names}


def random_of_price(
    space: Space, costs: Costs, design: Design, *, n: int = 10, tolerance: float = 0.1, seed: int = 0
) -> dict[str, Design]:
    """Random cells that cost what `design` does: to within a share of it, else the nearest; never itself or twice one.

    Of a design that costs next to nothing few random cells, or none, cost about as much: `apart` says how far they are.

    Args:
        space: where they are drawn.
        costs: the price list.
        design: whose price, width and depth they have.
        n: how many.
        tolerance: of the price of the cells, > 0; the first `n` to within it, or the nearest of 20,000 draws.
        seed: the first that is tried.

    Raises:
        UsageError: 20,000 draws hold fewer than `n` other cells.
    """
    target = costs.of(design, space) - costs.fixed
    price = dict(zip(space.names, costs.operators, strict=True))
    near: list[int] = []
    away: dict[int, float] = {}
    seen = {design.operators}
    for at in range(seed, seed + _TRIES):
        if len(near) == n:
            break
        cells = drawn(at, space)
        operators = (cells,) * design.depth
        if operators in seen:
            continue
        seen.add(operators)
        away[at] = abs(design.depth * (costs.cell + sum(price[name] for name in cells)) - target)
        if away[at] <= tolerance * abs(target):
            near.append(at)
    chosen = near if len(near) == n else sorted(away, key=away.__getitem__)[:n]
    if len(chosen) < n:
        what = f"Of {_TRIES:,} random cells only {len(chosen)} are another than the one they stand beside"
        raise UsageError(problem(what, remedy="Ask for fewer, or search a larger space"))
    found = {f"random-{at}": named(f"random-{at}", space, width=design.width, depth=design.depth) for at in chosen}
    return {name: each.model_copy(update={"exit": design.exit}) for name, each in found.items()}


def apart(space: Space, costs: Costs, design: Design, others: Iterable[Design]) -> float:
    """By how much the cells of `others` differ most from those of `design` in price, in the unit of `costs`."""
    target = costs.of(design, space)
    return max((abs(costs.of(each, space) - target) for each in others), default=0.0)
