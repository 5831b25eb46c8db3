"""A design as something to draw, and its operators in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recdistill.report.cell import Drawn, Wire
from recdistill.search.attention import Attention
from recdistill.search.cells import Cell
from recdistill.search.operators import Conv, Nothing, Pool, Skip
from recdistill.search.space import SPACES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recdistill.report.cell import Kind
    from recdistill.search.cells import Chain
    from recdistill.search.derive import Design
    from recdistill.search.operators import Operator

__all__ = ["described", "drawn", "legend"]


def drawn(design: Design, chances: Sequence[Sequence[Sequence[float]]] = (), chain: Chain | None = None) -> list[Drawn]:
    """The cells of a design: one where all are equal, else one for each place.

    Args:
        design: what is drawn.
        chances: G x E x O of the operators at the end of the search; none are written when empty.
        chain: the trained cells, whose mixing is written; a mean over the cells where one drawing stands for all.
    """
    space, depth = SPACES[design.space], design.depth
    mixes = [] if chain is None else [c.mix.detach().softmax(0).tolist() for c in chain.cells if isinstance(c, Cell)]
    cells: list[Drawn] = []
    for place, edges in enumerate(design.cells):
        if len(design.cells) > 1:
            title, of = f"cell {place + 1} of {depth}", mixes[place : place + 1]
        else:
            title, of = ("one cell" if depth == 1 else f"{depth} equal cells, one after the other"), mixes
        given = chances[min(place, len(chances) - 1)] if chances else None
        wires: list[Wire] = []
        for at, edge in enumerate(edges):
            operator = space.operator(edge.operator)
            chance = None if given is None else given[at][space.index(edge.operator)]
            wires.append(Wire(edge.source, edge.target, operator.name, _kind(operator), chance, described(operator)))
        shares = [sum(column) / len(of) for column in zip(*of, strict=True)] if of else None
        cells.append(Drawn(title, design.nodes, wires, shares))
    return cells


def legend(design: Design) -> dict[str, str]:
    """Every operator of a design but "none", in the order of its space -> what it does."""
    used = {name for row in design.operators for name in row}
    space = SPACES[design.space]
    return {one.name: described(one) for one in space.operators if one.name in used and not isinstance(one, Nothing)}


def described(operator: Operator) -> str:
    """What an operator does, in words."""
    match operator:
        case Conv(kernel=kernel, dilation=dilation, side=side):
            apart = "next to each other" if dilation == 1 else f"{dilation} apart"
            where = "up to the present one" if side == "left" else "around the present one, the future too"
            what = "the present item alone" if kernel == 1 else f"{kernel} items, {apart}, {where}"
            return f"convolution over {what}; a norm"
        case Attention(heads=heads):
            return f"self-attention of {heads} heads up to the present item; a norm"
        case Pool(how=how, kernel=kernel, side=side):
            what = "greatest" if how == "max" else "mean"
            return f"{what} of the last {kernel} items" if side == "left" else f"{what} of {kernel} items around"
        case Skip():
            return "the node as it is"
        case Nothing():
            return "nothing"
        case _:
            return operator.name


def _kind(operator: Operator) -> Kind:
    match operator:
        case Attention():
            return "attention"
        case Pool():
            return "pool"
        case Skip():
            return "skip"
        case Nothing():
            return "none"
        case _:
            return "conv"
