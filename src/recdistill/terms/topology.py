"""FTD's and HTD's terms: how the batch's users and items lie to each other. Kang et al., KDD 2021, arXiv:2106.08700.

Letters: n entities (distinct users, then distinct items), t teacher width, s student width, K groups a side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from typing_extensions import override

from recdistill.knowledge.view import Kind
from recdistill.losses.topology import between_prototypes, full_topology, to_prototypes, within_groups
from recdistill.objective import Term
from recdistill.query import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.knowledge.view import Layer, View
    from recdistill.losses.topology import Own, PairsOf
    from recdistill.query import Batch, Side
    from recdistill.terms.expert_match import ExpertMatch

__all__ = ["FullTopology", "GroupTopology"]


class FullTopology(Term):
    """All pairs of the batch's entities. What the teacher has no vector of is related to nobody."""

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.VECTORS})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.VECTORS})
    scope: ClassVar[Literal["row", "batch"]] = "batch"

    def __init__(self, *, layer: Layer = "served", teacher_layer: Layer = "served") -> None:
        """Say which vectors of student and teacher are compared; the two sides of each must be of one width."""
        super().__init__()
        self._layer: Layer = layer
        self._teacher_layer: Layer = teacher_layer

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del clock
        return Rows(full_topology(*self._vectors(student, teacher, batch)), of="pairs")

    def _vectors(self, student: View, teacher: View | None, batch: Batch) -> tuple[Tensor, Tensor]:
        """(n, t) of the teacher, zeros where it has none, and (n, s) of the student."""
        assert teacher is not None  # noqa: S101 - the loop has checked it
        ours: list[Tensor] = []
        theirs: list[Tensor] = []
        sides: tuple[Side, Side] = ("user", "item")
        for side, who in zip(sides, (batch.users, batch.items), strict=True):
            there = teacher.has(side, who.ids)
            vectors = teacher.entities(side, who.ids, self._teacher_layer)
            theirs.append(vectors if there is None else vectors * there[:, None])
            ours.append(student.entities(side, who.ids, self._layer))
        return torch.cat(theirs), torch.cat(ours)


class GroupTopology(FullTopology):
    """Pairs within a group, and each entity with the groups' prototypes; DE's selections choose the groups."""

    def __init__(
        self,
        users: ExpertMatch,
        items: ExpertMatch,
        *,
        pairs: PairsOf = "positive",
        own: Own = "kept",
        level: Literal["entity", "prototype"] = "entity",
        layer: Layer = "served",
        teacher_layer: Layer = "served",
    ) -> None:
        """Say what is compared.

        Args:
            users: DE's term of the users in the same objective, which learns their groups.
            items: DE's term of the items.
            pairs: as in `losses.topology.within_groups`.
            own: as in `losses.topology.to_prototypes`.
            level: "entity" compares entities with prototypes, Group(P, e); "prototype" prototypes, Group(P, P).
            layer: which of the student's vectors are compared.
            teacher_layer: which of the teacher's.
        """
        super().__init__(layer=layer, teacher_layer=teacher_layer)
        self._learn = (users, items)  # a tuple: they are no part of this one
        self._pairs: PairsOf = pairs
        self._own: Own = own
        self._level: Literal["entity", "prototype"] = level

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del clock
        theirs, ours = self._vectors(student, teacher, batch)
        users, items = self._learn
        split = len(batch.users.ids)
        group = torch.cat([users.group(theirs[:split]), users.experts + items.group(theirs[split:])])
        groups = users.experts + items.experts
        near = within_groups(theirs, ours, group, pairs=self._pairs)
        if self._level == "prototype":
            return Rows(torch.cat([near, between_prototypes(theirs, ours, group, groups=groups)]), of="pairs")
        return Rows(near + to_prototypes(theirs, ours, group, groups=groups, own=self._own), of="pairs")
