"""A search space is data: the operators that may stand on an edge, and how the edges of a cell are laid.

A cell has one input, node 0, and nodes 1..N; every earlier node has an edge to every later one. Adding an operator to a
space touches this file alone. Chen et al., AdaRec, arXiv:2107.07173: "causal" and "published" have the ten slots of
the official code, whose names the published one keeps; "attentive" is ours, the causal one with the two halves of a
block of SASRec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from recdistill.errors import UnknownName, UsageError, problem
from recdistill.registry import Registry
from recdistill.search.attention import Attention
from recdistill.search.operators import Conv, Nothing, Operator, Pool, Skip

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SPACES", "Scored", "Space"]

Scored = Literal["every", "last"]
"""At which positions of a history the student predicts the next item in training."""


@dataclass(frozen=True, slots=True)
class Space:
    """Ten operators, or any other number, and the nodes of a cell."""

    name: str
    operators: tuple[Operator, ...]
    nodes: int = 3

    def __len__(self) -> int:
        return len(self.operators)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(source, target) of every edge: (0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)."""
        return tuple((source, target) for target in range(1, self.nodes + 1) for source in range(target))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the operators, in order."""
        return tuple(operator.name for operator in self.operators)

    def index(self, name: str) -> int:
        """The place of an operator; `UnknownName` with the nearest one otherwise."""
        if name not in self.names:
            raise UnknownName(f"operator of the space {self.name!r}", name, self.names)
        return self.names.index(name)

    def operator(self, name: str) -> Operator:
        """The operator of that name; `UnknownName` with the nearest one otherwise."""
        return self.operators[self.index(name)]

    def check(self, scored: Scored, used: Iterable[str] | None = None) -> Space:
        """This space, if a student scored there cannot read what it is to predict.

        Args:
            scored: where the next item is predicted in training.
            used: names of the operators that there are; all when None.

        Raises:
            UsageError: an operator reads the future and the loss is next-item at every position.
        """
        names = self.names if used is None else set(used)
        ahead = [operator for operator in self.operators if operator.name in names and not operator.causal]
        if scored == "last" or not ahead:
            return self
        labels = [operator.name for operator in ahead if 1 in operator.reads]
        why = f"{len(ahead)} of its operators read the future ({', '.join(one.name for one in ahead)})"
        if labels:
            why += f", and {', '.join(labels)} read position t + 1, which is the label of position t"
        message = problem(
            f"The space {self.name!r} leaks under a next-item loss at every position: {why}",
            allowed="a space whose operators are all causal, or a loss at the last position",
            remedy="Use the space 'causal', or score the last position alone: scored = 'last'",
        )
        raise UsageError(message)


SPACES: Registry[Space] = Registry("search space")

_CAUSAL = (
    Conv("cau_cnn_3_d1", 3, 1),
    Conv("cau_cnn_3_d2", 3, 2),
    Conv("cau_cnn_3_d4", 3, 4),
    Conv("cau_cnn_5_d1", 5, 1),
    Conv("cau_cnn_5_d2", 5, 2),
    Conv("cau_cnn_5_d4", 5, 4),
    Pool("cau_max_pool", "max"),
    Pool("cau_avg_pool", "mean"),
    Skip("skip_connect"),
    Nothing("none"),
)
SPACES.add("causal", Space("causal", _CAUSAL))
SPACES.add("attentive", Space("attentive", (Attention("attention"), Conv("cnn_1", 1), *_CAUSAL)))
SPACES.add(
    "published",
    Space(
        "published",
        (
            Conv("std_cnn_3", 3, side="both"),
            Conv("dil_cnn_3", 3, 2, side="both"),
            Conv("cau_cnn_3", 3, 2),
            Conv("std_cnn_5", 5, side="both"),
            Conv("dil_cnn_5", 5, 2, side="both"),
            Conv("cau_cnn_5", 5, 2),
            Pool("max_pool", "max", side="both"),
            Pool("avg_pool", "mean", side="both", counts="all"),
            Skip("skip_connect"),
            Nothing("none"),
        ),
    ),
)
