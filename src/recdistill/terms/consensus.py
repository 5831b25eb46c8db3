"""HetComp's term: what several teachers agree on, from easy to hard. Kang et al., WWW 2023, arXiv:2303.01130.

Letters: U users, M teachers, Q distinct users of a batch, K items of the teachers, P observed items, D list length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from typing_extensions import override

from recdistill import rng
from recdistill.data.draws import outside
from recdistill.errors import UsageError, problem
from recdistill.knowledge.merging import best_of_merged, merged
from recdistill.knowledge.view import Kind
from recdistill.losses.consensus import above_the_rest, distance_of_lists, in_order
from recdistill.objective import Term
from recdistill.order import ascending
from recdistill.query import Rows
from recdistill.terms.lists import TeacherLists, own_best

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.data.draws import Taken
    from recdistill.knowledge.view import Knows, View
    from recdistill.query import Batch

__all__ = ["Consensus"]


class Consensus(Term):
    """A user's target is the list that the teachers agree on, each at a step of its own for that user.

    Every teacher is a sequence of steps, from the first to the last. Every `period` epochs, for each user and teacher,
    the next step is taken when the student has come nearer to it by a factor that falls with time, or has moved away.
    Until `settled` of all steps are taken, items of the target and observed ones are put above the rest (coarse); then
    the target's order counts (fine). Where each user stands is part of a checkpoint.
    """

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.RANKS})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})

    place: Tensor
    distance: Tensor
    looked: Tensor

    def __init__(
        self,
        courses: Sequence[Sequence[Knows]],
        taken: Taken,
        n_users: int,
        *,
        near: int = 100,
        positives: int = 10,
        fine: float = 0.5,
        sharpness: float = 10.0,
        period: int = 10,
        patience: float = 1.05,
        relax: float = 0.995,
        settled: float = 0.995,
        judged: int = 50,
        rest: Literal["all", "sampled"] = "all",
        far: int = 500,
        seed: int = 0,
    ) -> None:
        """Say who teaches and what is compared.

        Args:
            courses: M teachers, each with its steps.
            taken: the users' training items.
            n_users: U.
            near: K, items of a target, and how much of each teacher's list counts.
            positives: P, observed items a user and epoch, spread over all it has.
            fine: multiplies the fine stage's loss.
            sharpness: the item at rank r of a teacher's list is worth `e^(-r / sharpness)` to the consensus.
            period: epochs between looks; the first is at epoch `period`.
            patience: the factor at first, > 0.
            relax: it is multiplied by `relax^(epoch / period)`.
            settled: share of all steps from which on the order counts.
            judged: how much of the lists decides how near the student is.
            rest: everything else is "all", exactly, or "sampled" and weighed up to all.
            far: items a user and epoch, where sampled.
            seed: of the draws.

        Raises:
            UsageError: there is no teacher, or a number is out of range.
        """
        super().__init__()
        if not courses or min(near, period, judged, far) < 1 or positives < 0 or min(sharpness, patience, relax) <= 0:
            what = "HetComp needs a teacher, near, period, judged and far >= 1, positives >= 0 and factors > 0"
            raise UsageError(problem(what, f"{len(courses)} teachers, near={near}, period={period}, far={far}"))
        self._courses, self._taken, self._seed = [tuple(steps) for steps in courses], taken, seed
        self._near, self._positives, self._fine, self._sharpness = min(near, taken.n_items), positives, fine, sharpness
        self._period, self._patience, self._relax, self._settled = period, patience, relax, settled
        self._judged, self._rest, self._far = min(judged, taken.n_items), rest, min(far, taken.n_items)
        device = taken.keys.device
        depth = max(self._near, self._judged)
        self._lists = [[TeacherLists(n_users, depth, device) for _ in steps] for steps in courses]
        self._target = torch.empty(n_users, self._near, dtype=torch.int32, device=device)  # (U, K)
        self._made = torch.zeros(n_users, dtype=torch.bool, device=device)
        self.register_buffer("place", torch.zeros(len(courses), n_users, dtype=torch.int16, device=device))
        self.register_buffer("distance", torch.ones(len(courses), n_users, device=device))
        self.register_buffer("looked", torch.full((n_users,), -1, dtype=torch.int32, device=device))
        self._stage: bool | None = None

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        users, mine = batch.users, student.select(batch.users.first)
        if clock.epoch >= self._period and clock.epoch % self._period == 0:
            self._climb(mine, batch, clock.epoch)
        items = self.targets(batch)  # (Q, K)
        observed = self._observed(users.ids, clock.epoch)  # (Q, P)
        if self._stage is None:
            self._stage = self._is_settled()
        scores = mine.scores(torch.cat([observed, items], 1))
        above, top = scores[:, : observed.shape[1]], scores[:, observed.shape[1] :]
        known = (items >= 0).any(1)  # whom no teacher knows costs nothing
        rest = self._log_rest(mine, users.ids, items, clock.epoch)[:, None]
        if not self._stage:
            return Rows(known * above_the_rest(scores, rest), of="users")
        lower = torch.logsumexp(torch.cat([rest, top[:, max(self._near // 2, 1) :]], 1), 1, keepdim=True)
        return Rows(self._fine * known * (above_the_rest(above, lower) + in_order(top, rest)), of="users")

    def targets(self, batch: Batch) -> Tensor:
        """(Q, K) int64 items of the batch's distinct users that the teachers agree on, best first, -1 past the end."""
        users = batch.users
        new = (~self._made[users.ids]).nonzero()[:, 0]
        if len(new):
            ids = users.ids[new]
            lists = [
                self._at(m, self.place[m, ids].long(), batch, new)[:, : self._near] for m in range(len(self._lists))
            ]
            ranks = torch.arange(1, self._near + 1, device=ids.device)
            worth = torch.exp(-ranks / self._sharpness).repeat(len(lists)).expand(len(ids), -1)
            found = best_of_merged(*merged(torch.cat(lists, 1), worth), self._near)
            self._target[ids], self._made[ids] = found.to(torch.int32), True
        return self._target[users.ids].long()

    def _climb(self, student: View, batch: Batch, epoch: int) -> None:
        """Take the next step where it is time to; each user is looked at once an epoch."""
        due = (self.looked[batch.users.ids] != epoch).nonzero()[:, 0]
        if not len(due):
            return
        ids = batch.users.ids[due]
        first = self.looked[ids] < 0
        listed = own_best(student.select(due), self._taken, ids, self._judged)  # (m, n)
        factor = self._patience * self._relax ** (epoch // self._period)
        for m, steps in enumerate(self._courses):
            place, last = self.place[m, ids].long(), len(steps) - 1
            now = self._away(listed, m, (place + 1).clamp(max=last), batch, due)
            ratio = self.distance[m, ids] / now.clamp(min=1e-6)
            ready = ~first & (place < last) & ((ratio > factor) | (ratio < 1))
            after = self._away(listed, m, (place + 2).clamp(max=last), batch, due)
            self.distance[m, ids] = torch.where(first, now, torch.where(ready, after, self.distance[m, ids]))
            self.place[m, ids] = (place + ready).to(torch.int16)
            self._made[ids[ready]] = False
        self.looked[ids] = epoch
        self._stage = self._is_settled()

    def _is_settled(self) -> bool:
        met = self.looked >= 0
        steps = sum(len(steps) - 1 for steps in self._courses)
        if steps == 0:
            return True
        taken = self.place[:, met].sum().item()
        return bool(met.any()) and taken >= self._settled * steps * int(met.sum())

    def _away(self, listed: Tensor, m: int, step: Tensor, batch: Batch, index: Tensor) -> Tensor:
        return distance_of_lists(listed, self._at(m, step, batch, index)[:, : self._judged])

    def _at(self, m: int, step: Tensor, batch: Batch, index: Tensor) -> Tensor:
        """Teacher m at a step each (m,) of the batch's distinct users at `index` (m,) -> (m, D) items."""
        users, depth = batch.users, self._lists[m][0].items.shape[1]
        out = torch.full((len(index), depth), -1, dtype=torch.int64, device=index.device)
        for at, knows in enumerate(self._courses[m]):
            here = (step == at).nonzero()[:, 0]
            if len(here):
                some = index[here]
                out[here] = self._lists[m][at].of(knows.view(batch.query).select(users.first[some]), users.ids[some])
        return out

    def _observed(self, ids: Tensor, epoch: int) -> Tensor:
        """(Q, P) of what each user has, one of each P-th part of it, or all where there are fewer; -1 = none."""
        start = self._taken.indptr[ids]
        count = (self._taken.indptr[ids + 1] - start)[:, None]
        slot = torch.arange(self._positives, device=ids.device)
        words = rng.uniform(rng.key(self._seed, "observed", epoch), ids, self._positives)
        spread = ((slot + words) * (count / max(self._positives, 1))).long().minimum(count - 1)
        place = torch.where(count > self._positives, spread, slot)
        there = place < count
        item = self._taken.keys[(start[:, None] + place * there).clamp(max=len(self._taken.keys) - 1)]
        return torch.where(there, item - ids[:, None] * self._taken.n_items, -1)

    def _log_rest(self, student: View, ids: Tensor, items: Tensor, epoch: int) -> Tensor:
        """(Q,) the logarithm of the summed e^score of everything that is neither observed nor in the target."""
        if self._rest == "all":
            which, item, place = self._taken.pairs(ids)
            width = int(place.max()) + 1 if len(place) else 0
            without = torch.full((len(ids), width), -1, dtype=torch.int64, device=ids.device)
            without[which, place] = item
            return student.log_partition(torch.cat([without, items], 1))
        key = rng.key(self._seed, "rest", epoch)
        drawn = outside(key, ids, self._far, self._taken, more=ascending(items), distinct=True)  # (Q, L)
        there = (drawn >= 0).sum(1).clamp(min=1)
        have = self._taken.indptr[ids + 1] - self._taken.indptr[ids]
        whole = (self._taken.n_items - have - (items >= 0).sum(1)).clamp(min=1)
        return student.scores(drawn).logsumexp(1) + (whole / there).log()
