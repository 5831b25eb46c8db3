"""What a search finds: a design as JSON, and the student's cells built from it.

Chen et al., AdaRec, arXiv:2107.07173: the operator of greatest alpha on each edge, all edges kept, `none` eligible.

Letters: G architectures (1 or S), S cells, E edges.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field

from recdistill import rng
from recdistill.errors import DataError, SettingsError, UnknownName, problem
from recdistill.search.cells import Chain
from recdistill.search.norm import PositionNorm
from recdistill.search.space import SPACES
from recdistill.settings import Settings, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from recdistill.search.norm import Over
    from recdistill.search.sampling import Architecture, Choice
    from recdistill.search.space import Space

    T = TypeVar("T")

__all__ = ["Design", "Edge", "derive", "drawn", "hand_made", "inherit", "living", "named", "reestimate"]

_RESIDUAL = {(0, 1): "cau_cnn_3_d1", (1, 2): "cau_cnn_3_d2"}
_HAND_MADE: dict[str, dict[str, dict[tuple[int, int], str]]] = {
    "nextitnet": {  # a residual block: two convolutions, the second one reaching further
        "causal": _RESIDUAL,
        "attentive": _RESIDUAL,
        "published": {(0, 1): "cau_cnn_3", (1, 2): "cau_cnn_3"},
    },
    "sasrec": {  # a block: attention beside its input, and a pointwise layer after it
        "attentive": {(0, 1): "attention", (0, 2): "skip_connect", (1, 2): "cnn_1"},
    },
}


class Edge(Settings):
    """One edge of a cell."""

    source: int
    """The node it reads, 0 is the cell's input."""
    target: int
    """The node it adds to."""
    operator: str
    """A name of the space."""


class Design(Settings):
    """A derived architecture: all that is needed to build it again, anywhere."""

    version: Literal[1] = 1
    """Of this form of JSON."""
    space: str
    """A name of `SPACES`."""
    nodes: int = Field(ge=1)
    """Of a cell, its input not counted."""
    width: int = Field(ge=1)
    """C."""
    depth: int = Field(ge=1)
    """Cells in the chain."""
    exit: bool = False
    """Whether the last cell ends in a norm of its own, as it does where depth was searched."""
    cells: tuple[tuple[Edge, ...], ...] = Field(min_length=1)
    """One architecture for all cells, or one for each."""
    seed: int = 0
    """Of the search that found it, or of the draw."""
    fingerprints: dict[str, str] = Field(default_factory=dict)
    """Of what it was found on: "data", "prices", "teacher", ..."""

    @classmethod
    def of(
        cls, space: Space, operators: Sequence[Sequence[str]], *, width: int, depth: int = 4, exit: bool = False,
        seed: int = 0, fingerprints: Mapping[str, str] | None = None,
    ) -> Design:  # fmt: skip
        """From operator names, G x E, in the order of `space.edges`.

        Raises:
            SettingsError: a number of names or of architectures that does not fit.
            UnknownName: an operator that the space does not have.
        """
        if any(len(names) != len(space.edges) for names in operators):
            wanted = f"{len(space.edges)} names, for the edges {', '.join(f'{s}->{t}' for s, t in space.edges)}"
            raise SettingsError(problem("A cell needs an operator for every edge", list(operators), allowed=wanted))
        cells = tuple(
            tuple(
                Edge(source=source, target=target, operator=name)
                for (source, target), name in zip(space.edges, names, strict=True)
            )
            for names in operators
        )
        design = cls(
            space=space.name, nodes=space.nodes, width=width, depth=depth, exit=exit, cells=cells, seed=seed,
            fingerprints=dict(fingerprints or {}),
        )  # fmt: skip
        return design.checked()

    @classmethod
    def from_json(cls, text: str) -> Design:
        """Read what `to_json` wrote.

        Raises:
            DataError: it is not JSON.
            SettingsError: keys or values that are not a design's, edges that are not the cell's.
            UnknownName: a space, or an operator, that is not there.
        """
        try:
            table = json.loads(text)
        except ValueError as error:
            raise DataError(problem(f"A design must be JSON ({error})")) from None
        if not isinstance(table, dict):
            raise DataError(problem("A design must be a JSON object", table))
        return parse(cls, table).checked()

    def to_json(self) -> str:
        """Indented JSON, the same text for the same design."""
        return self.model_dump_json(indent=2) + "\n"

    def checked(self) -> Design:
        """This design, if its space can build it; see `from_json` for what is raised."""
        space = SPACES[self.space]
        if len(self.cells) not in {1, self.depth}:
            allowed = f"1 for all, or {self.depth}"
            raise SettingsError(problem("A design has another number of cells", len(self.cells), allowed=allowed))
        for cell in self.cells:
            laid = tuple((edge.source, edge.target) for edge in cell)
            if self.nodes != space.nodes or laid != space.edges:
                allowed = ", ".join(f"{source}->{target}" for source, target in space.edges)
                raise SettingsError(problem("The edges of a design are not those of its space", laid, allowed=allowed))
            for edge in cell:
                space.index(edge.operator)
        return self

    @property
    def operators(self) -> tuple[tuple[str, ...], ...]:
        """S x E names, one row for each cell."""
        rows = tuple(tuple(edge.operator for edge in cell) for cell in self.cells)
        return rows * self.depth if len(rows) == 1 else rows

    def build(self, *, over: Over = "real", pads: bool = False, seed: int = 0) -> Chain:
        """The cells with fresh weights, a function of the seed; see `Chain`."""
        space = SPACES[self.space]
        cells = [[[space.operator(name)] for name in names] for names in self.operators]
        exits = (self.depth,) if self.exit else ()
        return Chain(space, cells, width=self.width, over=over, pads=pads, exits=exits, seed=seed)


def derive(
    architecture: Architecture, *, width: int, seed: int = 0, choice: Choice | None = None,
    fingerprints: Mapping[str, str] | None = None,
) -> Design:  # fmt: skip
    """The arg-max operator of each edge, and the arg-max depth where depth is searched; or another choice.

    Operators that would read nothing are none, see `living`.
    """
    best, space = architecture.best() if choice is None else choice, architecture.space
    depth = best.depths[0] if best.depths else architecture.cells
    names = [living([space.names[edge[0]] for edge in group], space) for group in best.paths]
    return Design.of(
        space, names if len(names) == 1 else names[:depth], width=width, depth=depth, exit=bool(best.depths), seed=seed,
        fingerprints=fingerprints,
    )  # fmt: skip


def named(name: str, space: Space, *, width: int, depth: int = 4) -> Design:
    """A design by name: "all-none", "all-skip", "all-<operator>", "random-<seed>", or one of `hand_made`.

    Raises:
        UnknownName: there is no such cell, or no such operator.
    """
    kind, _, rest = name.partition("-")
    edges = len(space.edges)
    seed = 0
    if kind == "all" and rest:
        row = [space.operator("skip_connect" if rest == "skip" else rest).name] * edges
    elif kind == "random" and rest.isdigit():
        seed = int(rest)
        row = drawn(seed, space)
    elif space.name in _HAND_MADE.get(name, {}):
        laid = _HAND_MADE[name][space.name]
        row = [laid.get(edge, "none") for edge in space.edges]
    else:
        known = ["all-none", "all-skip", "all-<operator>", "random-<seed>", *hand_made(space)]
        raise UnknownName("cell", name, known)
    return Design.of(space, [row], width=width, depth=depth, seed=seed)


def hand_made(space: Space) -> tuple[str, ...]:
    """Names of the cells of a space that were made by hand."""
    return tuple(name for name, spaces in _HAND_MADE.items() if space.name in spaces)


def drawn(seed: int, space: Space) -> tuple[str, ...]:
    """The operators of the random cell of that seed, an edge each: uniform, but for those that would read nothing."""
    edges = np.arange(len(space.edges), dtype=np.int64)
    chosen = rng.integers(rng.key(seed, "random cell"), edges, 1, len(space))[:, 0].tolist()
    return living([space.names[index] for index in chosen], space)


def living(names: Sequence[str], space: Space) -> tuple[str, ...]:
    """The operators of a cell, with none on each edge that comes from a node to which nothing leads.

    What stood there would read zeros. A convolution of zeros is its bias, which batch norm cancels in training and
    multiplies by up to 1 / sqrt(eps) in evaluation: such a student is not the one that was trained. And it would be
    priced, though it computes nothing.

    Args:
        names: E operators, in the order of `space.edges`.
        space: whose they are.
    """
    reached, out = {0}, list[str]()
    for (source, target), name in zip(space.edges, names, strict=True):
        out.append(name if source in reached and space.operator(name).reads else "none")
        if out[-1] != "none":
            reached.add(target)
    return tuple(out)


@torch.no_grad()
def inherit(derived: Chain, supernet: Chain) -> None:
    """Give `derived` the weights that its operators have in `supernet`, in place.

    Raises:
        SettingsError: something of `derived` is not in `supernet`, or has another width.
    """
    have = supernet.state_dict()
    for name, value in derived.state_dict().items():
        if name not in have or have[name].shape != value.shape:
            there = f"{tuple(have[name].shape)}" if name in have else "nothing"
            what = f"The supernet has {there} for {name!r}, and the derived cells need {tuple(value.shape)}"
            remedy = "Derive at the supernet's width and space, or begin with fresh weights"
            raise SettingsError(problem(what, remedy=remedy))
        value.copy_(have[name])


@torch.no_grad()
def reestimate(model: torch.nn.Module, run: Callable[[T], object], batches: Iterable[T]) -> None:
    """Estimate the statistics of every norm in `model` anew: the plain average over `batches`, in place.

    In a supernet an operator's statistics are of inputs that came from whatever was sampled before it. Nothing else is
    in training mode meanwhile, so there is no dropout.

    Args:
        model: what holds the norms.
        run: `run(batch)` sends a batch through the model.
        batches: training batches; a few dozen are enough.
    """
    norms = [module for module in model.modules() if isinstance(module, PositionNorm)]
    before = model.training, [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.forgotten()
        norm.momentum = None
        norm.train()
    for batch in batches:
        run(batch)
    for norm, momentum in zip(norms, before[1], strict=True):
        norm.momentum = momentum
    model.train(before[0])
