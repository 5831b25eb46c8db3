"""Whether what was exported answers as the bundle it came from, and what it loses where it may not.

Letters: U users, Q queries, K list.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.data.csr import Csr
from recdistill.data.interactions import HeldOut
from recdistill.errors import BundleError, UsageError, problem
from recdistill.evaluation.evaluate import evaluate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.bundle import Bundle
    from recdistill.evaluation.ranking import Ranker

__all__ = ["Agreement", "agreement", "held_out", "lost", "sample"]

K = 10
"""Of the lists that are compared."""

METRIC = f"ndcg@{K}"
_USERS = 50_000
"""Users at most that a loss is measured on."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was found."""

    queries: int
    """How many users, or histories, were asked."""
    k: int
    """How long the lists are."""
    overlap: float
    """Mean share of the bundle's list that is in the other, in [0, 1]."""
    identical: float
    """Share of lists that are the same, place by place."""
    difference: float
    """The greatest difference of a score, as a share of the greatest score of its list."""
    before: float | None = None
    """NDCG@10 of the bundle on what it holds and was not trained on; None where there is nothing."""
    after: float | None = None
    """NDCG@10 of what was exported."""
    users: int = 0
    """How many users that was measured on."""

    @property
    def loss(self) -> float | None:
        """Share of NDCG@10 that is lost; below 0 where it grew; None where it could not be measured."""
        if self.before is None or self.after is None or self.before <= 0:
            return None
        return (self.before - self.after) / self.before

    def checked(self, what: str, *, overlap: float, difference: float | None, loss: float | None) -> Agreement:
        """This, if it is good enough: scores, and NDCG@10 where a loss is allowed and known, else the overlap.

        Raises:
            BundleError: it is not; nothing should be written.
        """
        failed: list[str] = []
        if difference is not None and not self.difference <= difference:
            failed.append(f"scores differ by up to {self.difference:.2g} of the greatest, allowed {difference:.2g}")
        if loss is not None and self.loss is not None:
            if not self.loss <= loss:
                failed.append(f"it loses {self.loss:.2%} of NDCG@{self.k} on {self.users:,} users, allowed {loss:.2%}")
        elif not self.overlap >= overlap:
            failed.append(f"lists of {self.k} overlap by {self.overlap:.4f}, at least {overlap:g} is needed")
        if failed:
            remedy = "Nothing was written; export another format, or allow more on purpose"
            raise BundleError(problem(f"{what} does not answer as the bundle: {'; '.join(failed)}", remedy=remedy))
        return self

    def plain(self) -> dict[str, Any]:
        """As a manifest holds it."""
        return {**asdict(self), "loss": self.loss}

    def told(self, *, compact: bool) -> list[str]:
        """A sentence each; `compact`: of tables that may lose something."""
        what = (
            f"{self.queries:,} queries: top-{self.k} overlap {self.overlap:.4f}, identical lists {self.identical:.1%}"
        )
        lines = [f"{what}, scores within {self.difference:.1e} of the greatest"]
        if self.before is not None and self.after is not None:
            share = "" if self.loss is None else f" ({abs(self.loss):.2%} {'gained' if self.loss < 0 else 'lost'})"
            lines.append(f"NDCG@{self.k} on {self.users:,} users: {self.before:.5f} -> {self.after:.5f}{share}")
        elif compact:
            lines.append("The bundle holds nothing that it was not trained on, so no loss of NDCG could be measured")
        return lines


def sample(there: NDArray[np.int64], n: int, seed: int) -> NDArray[np.int64]:
    """Up to n of some rows, ascending; the same for the same seed."""
    if len(there) <= n:
        return there
    return np.sort(np.random.default_rng(seed).choice(there, n, replace=False))


def agreement(before: Ranker, after: Ranker, rows: NDArray[np.int64]) -> Agreement:
    """Compare the lists of two rankers, and the scores of what is in the first one's.

    Args:
        before: the bundle's.
        after: what came of it.
        rows: (Q,) user rows; at least one.

    Raises:
        UsageError: nobody is asked.
    """
    if not len(rows):
        raise UsageError(problem("There is no user to compare an export on"))
    k = min(K, before.n_items)
    one, other = before.top_k(rows, k), after.top_k(rows, k)  # (Q, K)
    return compared(one, other, before.scores_of(rows, one), after.scores_of(rows, one))


def compared(
    one: NDArray[np.int64], other: NDArray[np.int64], ours: NDArray[np.float32], theirs: NDArray[np.float32]
) -> Agreement:
    """(Q, K) lists of both, and what each scores the items of the first."""
    there = one >= 0
    both = (one[:, :, None] == other[:, None, :]).any(2) & there
    overlap = both.sum() / max(there.sum(), 1)
    mine, other_score = (np.where(there, each, 0).astype(np.float64) for each in (ours, theirs))
    greatest = np.abs(mine).max(axis=1, keepdims=True)
    apart = np.abs(mine - other_score) / np.maximum(greatest, 1e-30)
    worst = float(np.nan_to_num(apart, nan=np.inf).max(initial=0))
    same = float((one == other).all(axis=1).mean())
    return Agreement(len(one), one.shape[1], float(overlap), same, min(worst, float(np.finfo(np.float64).max)))


def held_out(opened: Bundle, seed: int = 0) -> HeldOut | None:
    """What a bundle's users have that it was not trained on: a test that needs no log; None where there is nothing."""
    trained = opened.trained
    if trained is None or len(trained) == len(opened.seen):
        return None
    user = np.repeat(np.arange(opened.seen.n_rows), opened.seen.degrees)
    other = np.asarray(opened.flags) == 0
    user, item = user[other], opened.seen.indices[other]
    learned = np.flatnonzero(trained.degrees > 0)
    chosen = sample(np.intersect1d(np.unique(user), learned), _USERS, seed)
    kept = np.isin(user, chosen)
    if not kept.any():
        return None
    targets = Csr.from_pairs(user[kept], item[kept], opened.seen.n_rows, opened.seen.n_columns)
    return HeldOut("test", opened.users, opened.items, targets, trained)


def lost(found: Agreement, before: Ranker, after: Ranker, held: HeldOut | None) -> Agreement:
    """The same, with NDCG@10 of both on held-out data."""
    if held is None:
        return found
    one, other = (evaluate(ranker, held, [METRIC]).means[METRIC] for ranker in (before, after))
    return replace(found, before=one, after=other, users=len(held.queries))
