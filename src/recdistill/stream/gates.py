"""GATE: what a student must pass before it is served. A failed gate keeps the version that is served, and says why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill import rng
from recdistill.stream.measure import per_user, popular, recalls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from recdistill.data.csr import Csr
    from recdistill.ledger import Stored
    from recdistill.stream.measure import Lists
    from recdistill.stream.settings import GateSettings

__all__ = ["Check", "Served", "Verdict", "judge", "untrained"]


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison."""

    name: str
    passed: bool
    """Whether it lets the student through."""
    why: str
    """In words, with the figures."""
    judged: bool = True
    """Whether there was anybody to judge by; where not, it lets through and says so."""


@dataclass(frozen=True, slots=True)
class Served:
    """The version that is served."""

    answers: Lists
    """As it answers: unknown users get its popular list."""
    lists: Lists
    """By its model alone: unknown users get nothing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """All checks of a candidate, and what was measured on the way."""

    checks: tuple[Check, ...]
    recall: dict[int, float]
    """Block -> recall@k on its holdout."""
    segments: dict[str, float]
    """Recall@k on the newest block: of new users, of users known before, of popularity."""
    k: int | None = None
    """The cut-off; None where nothing was measured."""
    served: float | None = None
    """Recall@k on the newest block of the version that was served till then, as it answers; None before the first."""

    @property
    def passed(self) -> bool:
        """Whether it may be served."""
        return all(check.passed for check in self.checks)

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        recall = {str(block): value for block, value in self.recall.items()}
        checks = [asdict(check) for check in self.checks]
        told = {"recall": recall, "segments": self.segments, "k": self.k, "served": self.served}
        return {"passed": self.passed, "checks": checks, **told}


def untrained(why: str) -> Verdict:
    """Of a student whose training failed: there is nothing to measure."""
    return Verdict((Check("trained", passed=False, why=why),), {}, {})


def judge(
    candidate: Lists,
    served: Served | None,
    holdouts: Sequence[Stored],
    *,
    popular_items: NDArray[np.int64],
    best: Mapping[int, float],
    seen: Csr,
    settings: GateSettings,
    seed: int,
) -> Verdict:
    """Measure a student and hold it against the version that is served.

    Args:
        candidate: the student's lists; empty for users it does not have.
        served: the serving version; None before the first.
        holdouts: of every block, oldest first.
        popular_items: of the newest block, best first.
        best: block -> the best recall that a student ever had on its holdout.
        seen: U x I, what lists that people get leave out.
        settings: the bounds.
        seed: of the users whose lists are compared.
    """
    n_users, n_items, k, newest = seen.n_rows, seen.n_columns, settings.k, holdouts[-1]
    shape = {"n_users": n_users, "n_items": n_items}
    recall = recalls(candidate, holdouts, k, **shape)
    users, values = per_user(candidate, newest, k, **shape)
    _, by_popularity = per_user(popular(popular_items), newest, k, **shape)
    new = users >= newest.measured["old_users"]
    segments = {
        name: float(part.mean())
        for name, part in (
            ("new", values[new]),
            ("known", values[~new]),
            ("popularity", by_popularity),
            ("popularity, new", by_popularity[new]),
        )
        if len(part)
    }
    checks = [_old_blocks(recall, best, newest.measured["number"], settings)]
    if settings.new_users:
        first = served is None or newest.measured["old_users"] == 0
        checks.append(_new_users(segments, int(new.sum()), settings, first=first))
    before: NDArray[np.float64] | None = None
    if served is not None:
        before = per_user(served.answers, newest, k, **shape)[1]
        checks.append(_newest(values, before, settings))
        checks += _lists(candidate, served.lists, seen, settings, seed)
    then = None if before is None or not len(before) else float(before.mean())
    return Verdict(tuple(checks), recall, segments, k, then)


def _newest(values: NDArray[np.float64], before: NDArray[np.float64], settings: GateSettings) -> Check:
    if len(values) < settings.newest_least:
        why = f"not judged: {len(values)} users are held out of the newest block, fewer than {settings.newest_least}"
        return Check("newest block", passed=True, why=why, judged=False)
    now, then = float(values.mean()), float(before.mean())
    least = then * (1 - settings.worse)
    why = f"recall@{settings.k} on the newest block {now:.4f}, at least {least:.4f} (serving version {then:.4f})"
    return Check("newest block", now >= least, why)


def _old_blocks(recall: Mapping[int, float], best: Mapping[int, float], newest: int, settings: GateSettings) -> Check:
    old = [block for block in recall if block != newest and block in best]
    if not old:
        return Check("old blocks", passed=True, why="there is no older block")
    now = float(np.mean([recall[block] for block in old]))
    then = float(np.mean([max(best[block], recall[block]) for block in old]))
    least = then * (1 - settings.forgetting)
    why = f"recall@{settings.k} on {len(old)} old blocks {now:.4f}, at least {least:.4f} (their best {then:.4f})"
    return Check("old blocks", now >= least, why)


def _new_users(segments: Mapping[str, float], count: int, settings: GateSettings, *, first: bool) -> Check:
    if first and count:  # a refusal would leave nothing to serve, and nobody is old beside whom they are new
        now, least = segments["new"], segments["popularity, new"]
        why = (
            f"not judged: everybody is new to a first version; recall@{settings.k} {now:.4f}, popularity's {least:.4f}"
        )
        return Check("new users", passed=True, why=why, judged=False)
    if count < settings.new_users_least:
        why = f"not judged: {count} new users are held out, fewer than {settings.new_users_least}"
        return Check("new users", passed=True, why=why, judged=False)
    now, least = segments["new"], segments["popularity, new"]
    why = f"recall@{settings.k} of {count:,} new users {now:.4f}, at least popularity's {least:.4f}"
    return Check("new users", now >= least, why)


def _lists(candidate: Lists, served: Lists, seen: Csr, settings: GateSettings, seed: int) -> list[Check]:
    order = np.argsort(rng.bits(rng.key(seed, "gate"), np.arange(seen.n_rows), 1)[:, 0], kind="stable")
    asked = np.sort(order[: settings.users])
    new, old = candidate(asked, settings.k, seen), served(asked, settings.k, seen)
    known = (old >= 0).any(1)
    if not known.any():
        why = "not judged: the serving version knows none of the users"
        return [Check("overlap", passed=True, why=why, judged=False)]
    new, old = new[known], old[known]
    common = [(np.isin(a, b) & (a >= 0)).sum() / max((a >= 0).sum(), 1) for a, b in zip(new, old, strict=True)]
    overlap = float(np.mean(common))
    coverage = len(np.unique(new[new >= 0])) / max(len(np.unique(old[old >= 0])), 1)
    out: list[Check] = []
    for name, value, (low, high), of in (
        ("overlap", overlap, settings.overlap, "of each list is in common with the serving version's"),
        ("coverage", coverage, settings.coverage, "times the distinct items of the serving version's lists"),
    ):
        out.append(Check(name, low <= value <= high, f"{value:.3f} {of}, between {low:g} and {high:g}"))
    return out
