"""The cells that stand beside a searched one in every table: a search that does not beat them has found nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recdistill.errors import UsageError, problem
from recdistill.search.derive import drawn, named

if TYPE_CHECKING:
    from recdistill.search.cost import Costs
    from recdistill.search.derive import Design
    from recdistill.search.space import Space

__all__ = ["ALWAYS", "controls", "random_of_price"]

ALWAYS = ("all-none", "all-skip", "nextitnet")
"""Nothing on any edge, the input on every edge, and a hand-made residual block of two convolutions."""
_TRIES = 20_000


def controls(space: Space, *, width: int, depth: int, random: int = 10) -> dict[str, Design]:
    """The designs of `ALWAYS`, and `random` cells drawn uniformly, by name."""
    names = [*ALWAYS, *(f"random-{seed}" for seed in range(random))]
    return {name: named(name, space, width=width, depth=depth) for name in names}


def random_of_price(
    space: Space, costs: Costs, design: Design, *, n: int = 10, tolerance: float = 0.1, seed: int = 0
) -> dict[str, Design]:
    """Random cells that cost what `design` does, to within a share of what its cells cost; never itself or twice one.

    Args:
        space: where they are drawn.
        costs: the price list.
        design: whose price, width and depth they have.
        n: how many.
        tolerance: of the price of the cells, > 0.
        seed: the first that is tried.

    Raises:
        UsageError: 20,000 draws hold fewer than `n`.
    """
    target = costs.of(design, space) - costs.fixed
    found: dict[str, Design] = {}
    seen = {design.operators}
    for at in range(seed, seed + _TRIES):
        price = design.depth * (costs.cell + sum(costs.operators[index] for index in drawn(at, space)))
        if abs(price - target) > tolerance * target:
            continue
        one = named(f"random-{at}", space, width=design.width, depth=design.depth)
        if one.operators not in seen:
            found[f"random-{at}"] = one.model_copy(update={"exit": design.exit})
            seen.add(one.operators)
        if len(found) == n:
            return found
    what = f"Of {_TRIES:,} random cells only {len(found)} cost {target:g} {costs.unit} to within {tolerance:.0%}"
    raise UsageError(problem(what, remedy="Raise the tolerance, or ask for fewer"))
