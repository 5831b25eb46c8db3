"""LWC-KD: vectors of before against vectors of now, over the graph of before. Wang, Zhang, Coates, CIKM 2021.

    L(a) = - 1 / |N(a)| sum_{b in N(a)} log softmax_b( <old_a, new_b> / tau ),     softmax over everybody of before

with anchors a and neighbours b of any two sides: user-item, item-user, user-user, item-item. As CCD's
official code has it; where that code weighs users (PIW, Wang et al., AAAI 2023) its product of (B,) and (B, 1) is a
(B, B) whose mean forgets the weights, and gives them no gradient: here they multiply row by row.

Letters: n anchors of a batch, R entities of before on the other side, d dims, C clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import override

from recdistill import rng
from recdistill.knowledge.view import Kind
from recdistill.losses.cross_entropy import log_partition
from recdistill.objective import Term
from recdistill.query import Distinct, Rows

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.data.csr import Csr
    from recdistill.knowledge.view import View
    from recdistill.query import Batch, Side
    from recdistill.runtime import How

__all__ = ["Clusters", "GraphContrast", "Personal"]

_CHUNK = 512


class Personal(nn.Module):
    """How much of the past each user keeps: a function of how far the user's mix of clusters has moved."""

    def __init__(self, old: Tensor, *, clusters: int, seed: int) -> None:
        """Take the users' old vectors (U, d); C centres begin at some of them."""
        super().__init__()
        d = old.shape[1]
        chosen = torch.from_numpy(rng.permutation(rng.key(seed, "centres"), len(old))[:clusters].copy())
        self.centres = nn.Parameter(old[chosen].clone())  # (C, d)
        generator = torch.Generator().manual_seed(rng.key(seed, "weights"))
        into, out = nn.Linear(len(chosen), d), nn.Linear(d, 1)
        for layer in (into, out):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        self.weigh = nn.Sequential(into, nn.ReLU(), out, nn.Softplus())

    def assigned(self, vectors: Tensor) -> Tensor:
        """(n, d) -> (n, C) shares by Student's t with one degree of freedom (Xie et al., DEC, ICML 2016)."""
        far = (vectors[:, None] - self.centres).square().sum(2)  # (n, C)
        near = 1 / (1 + far)
        return near / near.sum(1, keepdim=True)

    @override
    def forward(self, old: Tensor, new: Tensor) -> Tensor:
        """(n, d), (n, d) -> (n,) weights >= 0 with mean 1."""
        moved = (self.assigned(old) - self.assigned(new)).square()  # (n, C)
        weight = self.weigh(moved)[:, 0]
        return weight / weight.mean().clamp(min=1e-12)


class GraphContrast(Term):
    """One of the four terms; anchors are a batch's distinct users, or the items of its interactions."""

    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.VECTORS})
    _old: Tensor
    _begin: Tensor
    _who: Tensor
    _everybody: Tensor

    def __init__(
        self,
        old: Tensor,
        neighbours: Csr,
        *,
        side: Side,
        other: Side,
        temperature: float = 5.0,
        anchors: int | None = None,
        how: How = "sum",
        reach: Literal["everybody", "batch"] = "everybody",
        personal: Personal | None = None,
        seed: int = 0,
    ) -> None:
        """Say who remembers whom.

        Args:
            old: (A, d) the anchors' vectors before.
            neighbours: A x R, over entities of before.
            side: of the anchors.
            other: of the neighbours.
            temperature: tau.
            anchors: of a batch's, at most so many are asked at a step, the others' part is estimated; None asks all.
            how: over anchors.
            reach: whose new vectors get a gradient: everybody's in the softmax, or only those of the batch's users and
                items, so that an optimiser that makes the same step of any gradient leaves the others where they are.
            personal: weighs anchors that are users; trained and kept by a `Clusters` beside this term.
            seed: of the choice of anchors.
        """
        super().__init__()
        begin, who = (torch.from_numpy(each.astype(np.int64)) for each in (neighbours.indptr, neighbours.indices))
        held = {"old": old.detach(), "begin": begin, "who": who, "everybody": torch.arange(neighbours.n_columns)}
        for name, value in held.items():
            self.register_buffer(f"_{name}", value, persistent=False)
        self._side: Side = side
        self._other: Side = other
        self._temperature, self._most, self._seed = temperature, anchors, seed
        self.how = how
        self._reach: Literal["everybody", "batch"] = reach
        self._personal = () if personal is None else (personal,)  # `Clusters` owns it

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del teacher
        ids = batch.users.ids if self._side == "user" else Distinct.of(batch.positive).ids
        ids = ids[ids < len(self._old)]
        ids = ids[self._begin[ids + 1] > self._begin[ids]]  # (n,) with a neighbour
        of = "users" if self._side == "user" else "items"
        scale = 1.0
        if self._most is not None and len(ids) > self._most:
            word = rng.bits(rng.key(self._seed, "anchors", clock.epoch, clock.step), ids, 1)[:, 0]
            scale = len(ids) / self._most if self.how == "sum" else 1.0
            ids = ids[word.argsort()[: self._most].sort().values]
        table = moved = student.entities(self._other, self._everybody)  # (R, d)
        if self._reach == "batch":
            held = batch.users.ids if self._other == "user" else torch.cat([batch.positive, batch.negatives.ravel()])
            held = Distinct.of(held[held < len(table)]).ids  # (m,)
            moved = student.entities(self._other, held)  # (m, d)
            table = table.detach().index_copy(0, held, moved)
        old = self._old[ids] / self._temperature  # (n, d)
        start, end = self._begin[ids], self._begin[ids + 1]
        offsets = (end - start).cumsum(0) - (end - start)
        place = torch.arange(int((end - start).sum()), device=ids.device)
        place = place + torch.repeat_interleave(start - offsets, end - start)
        mean = F.embedding_bag(self._who[place], table, offsets, mode="mean") if len(ids) else old  # (n, d)
        value = _partition(old, table, moved) - (old * mean).sum(1)  # (n,)
        for personal in self._personal:
            value = value * personal(self._old[ids], student.entities("user", ids))
        return Rows(value * scale, of=of)


def _partition(old: Tensor, table: Tensor, moved: Tensor) -> Tensor:
    """(n, d), (R, d) -> (n,) log-sum-exp of the products; only `moved` (m, d), rows of the table, gets a gradient."""
    if moved is table:
        return log_partition(old, table, chunk=_CHUNK)
    value = log_partition(old, table.detach(), chunk=_CHUNK)
    products = old @ moved.T  # (n, m)
    share = (products.detach() - value[:, None]).exp_()  # of each in the softmax: what the derivative is
    return value + (share * (products - products.detach())).sum(1)


class Clusters(Term):
    """What sharpens a `Personal`'s clusters: KL(P || Q), Q who is in which, P = Q^2 / share, scaled (DEC, eq. 3)."""

    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.VECTORS})

    def __init__(self, personal: Personal, *, how: How = "sum") -> None:
        super().__init__()
        self.personal = personal
        self.how = how

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del teacher, clock
        q = self.personal.assigned(student.entities("user", batch.users.ids).detach())  # (n, C)
        p = (q.square() / q.sum(0, keepdim=True)).detach()
        p = p / p.sum(1, keepdim=True)
        return Rows((p * (p.clamp(min=1e-12).log() - q.clamp(min=1e-12).log())).sum(1), of="users")
