"""A teacher's list above everything else, exactly: RRD whose lower part is all other entities, not a sample of them.

    L(u) = - sum_k [ s_k - log( sum_{j >= k} e^{s_j} + sum_{v in rest(u)} e^{s_v} ) ]

CCD (Lee et al., KDD 2024, official code) draws 10,000 of Yelp's 12,261 items for the second sum; the exact one is a
single product, has no variance and no tables. The list's entities, and what is left out, are not in the rest.

Letters: Q distinct entities of a batch, K list, n left out, R entities of the other side, d dims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from typing_extensions import override

from recdistill.knowledge.table import gather_dot
from recdistill.knowledge.view import Kind
from recdistill.losses.log_rest import log_rest
from recdistill.losses.relaxed_ranking import relaxed_ranking
from recdistill.objective import Term
from recdistill.query import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.data.draws import Taken
    from recdistill.knowledge.view import Layer, View
    from recdistill.query import Batch, Side

__all__ = ["ExactRanking"]


class ExactRanking(Term):
    """Lists that were made before, one for each user over items, or one for each item over users."""

    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.VECTORS})
    _lists: Tensor

    def __init__(self, lists: Tensor, taken: Taken, *, side: Side = "user", layer: Layer = "served") -> None:
        """Say what is above and what is nowhere.

        Args:
            lists: (U, K) for `side` "user", best first, -1 past the end; (I, K) users for "item".
            taken: what is neither in a list nor in the rest, where the student trains; its rows are those of `lists`.
            side: whose lists they are; a batch's queries are of this side.
            layer: which vectors of the student are compared.
        """
        super().__init__()
        self.register_buffer("_lists", lists, persistent=False)
        self._taken = taken
        self._layer: Layer = layer
        self._side: Side = side
        self._other: Side = "item" if side == "user" else "user"

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del teacher, clock
        ids = batch.users.ids  # (Q,) of the queries' side
        near = self._lists[ids]  # (Q, K)
        everything = torch.arange(self._taken.n_items, device=ids.device)
        vectors = student.entities(self._side, ids, self._layer)  # (Q, d)
        table = student.entities(self._other, everything, self._layer)  # (R, d)
        there = near >= 0
        above = torch.where(there, gather_dot(vectors, table, near.clamp(min=0)), -torch.inf)
        row, column, _ = self._taken.pairs(ids)
        row = torch.cat([row, there.nonzero()[:, 0]])
        rest = log_rest(vectors, table, row, torch.cat([column, near[there]]))
        return Rows(relaxed_ranking(above, rest[:, None]), of="users" if self._side == "user" else "items")
