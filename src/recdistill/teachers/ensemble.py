"""Several teachers as one: their ranks, or their scores, weighed and averaged.

    by ranks:   score(u, i) = sum_m w_m worth(r_m(u, i)),   r from 1; what a member does not list is worth nothing to it
    by scores:  score(u, i) = sum_m w_m n_m(s_m(u, i)),     n_m makes scores of different members comparable

The weights of the members that know a user sum to 1. Ranks are those of each member's list of `depth`; so are the
least, the greatest, the mean and the deviation by which its scores are normalised.

Letters: Q queries, M members, D depth, C = M D candidates a query, K list, n items a query, U users.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from typing_extensions import override

from recdistill.data.draws import first_distinct
from recdistill.errors import UsageError, problem
from recdistill.knowledge.merging import NOBODY, best_of_merged, merged
from recdistill.knowledge.view import Kind, View, fingerprint_of
from recdistill.teachers.joined import Joined
from recdistill.teachers.kept import Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from recdistill.knowledge.view import Knows
    from recdistill.query import Query

__all__ = ["Combine", "Ensemble", "Members", "Normalise", "Worth", "ensemble", "worth_of_ranks"]

Combine = Literal["ranks", "scores"]
Worth = Literal["power", "exponential", "reciprocal"]
Normalise = Literal["minmax", "zscore", "none"]


def worth_of_ranks(n: int, *, worth: Worth, rate: float) -> NDArray[np.float32]:
    """(n,) what ranks 1..n are worth.

    Args:
        n: the last rank.
        worth: "power" `r^-rate` (CCD's official code: 0.05), "exponential" `e^(-r / rate)` (HetComp: 10), "reciprocal"
            `1 / (rate + r)` (reciprocal rank fusion, Cormack et al., SIGIR 2009: 60).
        rate: > 0.
    """
    ranks = np.arange(1, n + 1)
    if worth == "power":
        return (ranks**-rate).astype(np.float32)
    return (np.exp(-ranks / rate) if worth == "exponential" else 1 / (rate + ranks)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Members:
    """An ensemble whose members are still to be matched to a training log."""

    members: tuple[Any, ...]
    """What `distill` takes as a teacher, each."""
    settings: dict[str, Any]
    """Arguments of `Ensemble`."""


def ensemble(
    *members: object,
    weights: Sequence[float] | None = None,
    by: Combine = "ranks",
    worth: Worth = "reciprocal",
    rate: float = 60.0,
    normalise: Normalise = "zscore",
    depth: int = 500,
) -> Members:
    """Several teachers as one, for `distill`.

    Args:
        members: what `fit` returned, `teacher(...)`, or anything that can give views; each as a teacher alone.
        weights: of the members, >= 0 and not all 0; equal when None.
        by: "ranks" or "scores".
        worth: what a rank is worth, see `worth_of_ranks`; by ranks alone.
        rate: of `worth`, > 0.
        normalise: "minmax" to [0, 1] over a member's list, "zscore" to mean 0 and deviation 1, "none"; by scores alone.
        depth: of the members' lists.

    Raises:
        UsageError: no member, other weights than members, or a number out of range.
    """
    settings = {"by": by, "worth": worth, "rate": rate, "normalise": normalise, "depth": depth}
    _check(len(members), weights, rate, depth)
    return Members(members, settings | {"weights": None if weights is None else tuple(weights)})


class Ensemble:
    """A teacher made of others. It gives lists and scores; vectors of different members have no mean."""

    def __init__(
        self,
        members: Sequence[Knows],
        *,
        n_users: int,
        weights: Sequence[float] | None = None,
        by: Combine = "ranks",
        worth: Worth = "reciprocal",
        rate: float = 60.0,
        normalise: Normalise = "zscore",
        depth: int = 500,
    ) -> None:
        """As `ensemble`; `n_users` is U.

        Raises:
            UsageError: as `ensemble`; or a member cannot give what `by` asks.
        """
        _check(len(members), weights, rate, depth)
        self.members = tuple(members)
        need = {Kind.RANKS} if by == "ranks" else {Kind.RANKS, Kind.SCORES}
        lacking = [
            f"{at + 1} ({', '.join(sorted(need - m.provides))})" for at, m in enumerate(members) if need - m.provides
        ]
        if lacking:
            remedy = "Leave it out" if by == "ranks" else "Leave it out, or combine by = 'ranks', which lists can do"
            what = f"An ensemble by {by} asks {' and '.join(sorted(need))} of every member; some lack them"
            raise UsageError(problem(what, "member " + ", member ".join(lacking), remedy=remedy))
        given = np.ones(len(members)) if weights is None else np.asarray(weights, np.float64)
        self.weights = torch.from_numpy((given / given.sum()).astype(np.float32))
        self.by, self.normalise, self.depth = by, normalise, depth
        self._settings = (by, worth, rate, normalise, depth, given.tolist())
        self._worth = worth, rate
        self.kept = _Kept(n_users, len(members))

    @property
    def provides(self) -> frozenset[Kind]:
        """Lists and scores."""
        return frozenset({Kind.RANKS, Kind.SCORES})

    @property
    def fingerprint(self) -> str:
        """A digest of the members' and of how they are combined."""
        text = "\n".join([str(self._settings), *map(fingerprint_of, self.members)])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def coverage(self) -> str:
        """The reports of those members that were matched to training tables."""
        return "\n".join(str(m.coverage) for m in self.members if isinstance(m, Stored | Joined))

    def view(self, query: Query) -> View:
        """What they know together of a batch of queries."""
        return _EnsembleView(self, query, [member.view(query) for member in self.members])

    def worth(self, n: int, device: torch.device) -> Tensor:
        """(n,) what ranks are worth."""
        worth, rate = self._worth
        return torch.from_numpy(worth_of_ranks(n, worth=worth, rate=rate)).to(device)


class _Kept:
    """What was found out of each user, once in a run: the combined list, and how members' scores are normalised."""

    def __init__(self, n_users: int, members: int) -> None:
        self.met = torch.zeros(n_users, dtype=torch.bool)
        self.items = torch.empty(n_users, 0, dtype=torch.int32)  # (U, C) ascending, 2^31 - 1 past the end
        self.values = torch.empty(n_users, 0)  # (U, C)
        self.norms = torch.empty(n_users, members, 3)  # (U, M, 3) subtracted, divided by, least

    def place(self, device: torch.device, width: int) -> None:
        if self.items.shape[1] != width or self.items.device != device:
            n = len(self.met)
            self.met = torch.zeros(n, dtype=torch.bool, device=device)
            self.items = torch.empty(n, width, dtype=torch.int32, device=device)
            self.values = torch.empty(n, width, device=device)
            self.norms = torch.empty(n, self.norms.shape[1], 3, device=device)


class _EnsembleView(View):
    def __init__(self, of: Ensemble, query: Query, views: list[View]) -> None:
        self.source = f"the ensemble of {len(views)}"
        self._of, self._query, self._views = of, query, views
        self._found: tuple[Tensor, Tensor, Tensor] | None = None

    @override
    def known(self) -> Tensor:
        return torch.stack([view.known() for view in self._views]).any(0)

    @override
    def select(self, index: Tensor) -> View:
        part = _EnsembleView(self._of, self._query[index], [view.select(index) for view in self._views])
        if self._found is not None:
            part._found = (self._found[0][index], self._found[1][index], self._found[2][index])
        return part

    @override
    @torch.no_grad()
    def ranked(self, k: int) -> Tensor:
        listed = best_of_merged(*self._lists(), max(k, self._of.depth))
        if k > self._of.depth:  # what stands deeper in the members' lists comes after
            listed = first_distinct(torch.cat([listed, best_of_merged(*self._merged(k)[:2], k)], 1), k)
        return listed[:, :k]

    @override
    @torch.no_grad()
    def scores(self, items: Tensor) -> Tensor:
        there = items >= 0
        if self._of.by == "scores":
            self._lists()
            assert self._found is not None  # noqa: S101 - what `_lists` finds
            out = self._normal(items.clamp(min=0), self._found[2])
        else:
            listed, values = self._lists()
            place = torch.searchsorted(listed, items.to(torch.int32).contiguous()).clamp(max=listed.shape[1] - 1)
            found = listed.gather(1, place) == items
            out = torch.where(found, values.gather(1, place), 0.0)
        return torch.where(there & self.known()[:, None], out, torch.where(there, 0.0, -torch.inf))

    @override
    def scores_among(self, items: Tensor) -> Tensor:
        return self.scores(items.expand(len(self._query), -1))

    def _lists(self) -> tuple[Tensor, Tensor]:
        """(Q, C) candidates, ascending, and (Q, C) their values."""
        if self._found is not None:
            return self._found[:2]
        query, kept = self._query, self._of.kept
        usual = query.history is None and query.at is None and query.side == "user" and bool((query.row >= 0).all())
        if not usual:
            self._found = self._merged(self._of.depth)
            return self._found[:2]
        kept.place(query.row.device, self._of.depth * len(self._views))
        new = (~kept.met[query.row]).nonzero()[:, 0]
        if len(new):
            part = _EnsembleView(self._of, query[new], [view.select(new) for view in self._views])
            rows = query.row[new]
            kept.items[rows], kept.values[rows], kept.norms[rows] = part._merged(self._of.depth)
            kept.met[rows] = True
        self._found = (kept.items[query.row], kept.values[query.row], kept.norms[query.row])
        return self._found[:2]

    def _merged(self, depth: int) -> tuple[Tensor, Tensor, Tensor]:
        """(Q, M depth) distinct candidates, ascending, (Q, M depth) values, (Q, M, 3) norms."""
        lists = [view.ranked(depth) for view in self._views]  # M of (Q, D)
        norms = torch.stack([self._norm(*each) for each in zip(self._views, lists, strict=True)], 1)
        worth = self._of.worth(depth, norms.device) * self._weights()[:, :, None]  # (Q, M, D)
        distinct, values = merged(torch.cat(lists, 1), worth.flatten(1))
        if self._of.by == "scores":
            values = self._normal(torch.where(distinct == NOBODY, 0, distinct), norms)
        return distinct.to(torch.int32), values, norms

    def _weights(self) -> Tensor:
        """(Q, M), of those who know a query, with sum 1."""
        known = torch.stack([view.known() for view in self._views], 1)
        weights = known * self._of.weights.to(known.device)
        return weights / weights.sum(1, keepdim=True).clamp(min=1e-12)

    def _normal(self, items: Tensor, norms: Tensor) -> Tensor:
        """(Q, n), (Q, M, 3) -> (Q, n) the weighted mean of normalised scores; who lacks an item gives it his least."""
        weights, out = self._weights(), torch.zeros(items.shape, device=items.device)
        for m, view in enumerate(self._views):
            minus, over, least = (norms[:, m, part, None] for part in range(3))
            scores = (view.scores(items) - minus) / over
            out = out + weights[:, m, None] * torch.where(torch.isfinite(scores), scores, least)
        return out

    def _norm(self, view: View, listed: Tensor) -> Tensor:
        """(Q, D) its list -> (Q, 3) what is subtracted, what divides, and what it gives an item it does not know."""
        out = torch.tensor([0.0, 1.0, 0.0], device=listed.device).repeat(len(listed), 1)
        if self._of.by == "ranks":
            return out
        scores = view.scores(listed)
        there = (listed >= 0) & torch.isfinite(scores)
        n = there.sum(1).clamp(min=1)
        low = torch.where(there, scores, torch.inf).amin(1)
        low = torch.where(torch.isfinite(low), low, 0)
        if self._of.normalise == "minmax":
            high = torch.where(there, scores, -torch.inf).amax(1)
            out[:, 0], out[:, 1] = low, (torch.where(torch.isfinite(high), high, 1) - low).clamp(min=1e-12)
        elif self._of.normalise == "zscore":
            mean = torch.where(there, scores, 0).sum(1) / n
            apart = torch.where(there, scores - mean[:, None], 0).square().sum(1) / n
            out[:, 0], out[:, 1] = mean, apart.sqrt().clamp(min=1e-12)
        out[:, 2] = (low - out[:, 0]) / out[:, 1]
        return out


def _check(members: int, weights: Sequence[float] | None, rate: float, depth: int) -> None:
    if members < 1:
        raise UsageError(problem("An ensemble needs at least one member"))
    if weights is not None and (len(weights) != members or min(weights) < 0 or sum(weights) <= 0):
        what = f"An ensemble of {members} needs as many weights, >= 0 and not all 0"
        raise UsageError(problem(what, list(weights)))
    if rate <= 0 or depth < 1:
        raise UsageError(problem("An ensemble needs rate > 0 and depth >= 1", f"rate={rate}, depth={depth}"))
