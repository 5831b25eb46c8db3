"""A bundle measured on a log: ids are matched, nothing of torch is imported.

Letters: U users, I items of the log; Q queries, K list, n others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill import bundle as bundles
from recdistill.data.candidates import draw
from recdistill.data.csr import Csr
from recdistill.data.sources import read
from recdistill.data.split import HOWS
from recdistill.data.split import split as divide
from recdistill.errors import DataError, UnknownName, UsageError, problem
from recdistill.evaluation.blocks import default_threads
from recdistill.evaluation.card import bytes_on_disk
from recdistill.evaluation.conventions import convention
from recdistill.evaluation.metrics import parse
from recdistill.evaluation.protocol import sampled
from recdistill.evaluation.ranking import ranker
from recdistill.recipes.compare import Comparison, System, compare, label
from recdistill.recipes.leaks import rows_in, trained_on
from recdistill.recipes.listener import Silent
from recdistill.recipes.measure import as_seen_by

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.data.formats.table import OnBadRows
    from recdistill.evaluation.ranking import Ranker
    from recdistill.recipes.listener import Listener

__all__ = ["AFTER_TRAINING", "Matched", "evaluate_bundle"]

AFTER_TRAINING = "after their training histories"
"""In the lineage of a bundle of a model that reads histories: what its users' vectors stand for."""


class Matched:
    """A ranker asked in the rows of a log: users and items are matched by external id.

    A user the model does not know gets no list; an item it does not know is never ranked.
    """

    def __init__(self, inner: Ranker, user: NDArray[np.int64], item: NDArray[np.int64]) -> None:
        """Match rows.

        Args:
            inner: the model's ranker, in its own rows.
            user: (U,) the model's row of each user of the log, -1 = unknown to it.
            item: (I,) the same of items.
        """
        self._inner, self._user, self._item = inner, user, item
        self._ours = np.full(inner.n_items, -1, np.int64)
        self._ours[item[item >= 0]] = np.flatnonzero(item >= 0)
        self.n_users, self.n_items, self.threads = len(user), len(item), default_threads()
        self._matched: tuple[Csr, Csr] | None = None  # what was left out last, in both numberings

    def top_k(self, queries: NDArray[np.int64], k: int, exclude: Csr | None = None) -> NDArray[np.int64]:
        """(Q,) rows of the log -> (Q, k) items of the log, best first, -1 past the end."""
        theirs = self._users(queries)
        foreign = int((self._ours < 0).sum())  # as many more are asked for, so that k of ours remain
        best = self._inner.top_k(theirs, min(k + foreign, self._inner.n_items), self._excluded(exclude))
        rows = np.where(best >= 0, self._ours[np.maximum(best, 0)], -1)  # (Q, k + foreign)
        order = np.argsort(rows < 0, axis=1, kind="stable")[:, :k]
        out = np.full((len(queries), k), -1, np.int64)
        out[:, : order.shape[1]] = np.take_along_axis(rows, order, 1)
        return out

    def ranks_among(
        self, queries: NDArray[np.int64], target: NDArray[np.int64], others: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """(Q,) users, (Q,) targets, (Q, n) others -> (Q,) rank of the target; an unknown target has no rank."""
        theirs, wanted = self._users(queries), self._item[target]
        rank = self._inner.ranks_among(np.where(wanted >= 0, theirs, -1), np.maximum(wanted, 0), self._items(others))
        return np.where(wanted >= 0, rank, np.inf)

    def scores_of(self, queries: NDArray[np.int64], items: NDArray[np.integer]) -> NDArray[np.float32]:
        """(Q,) users, (Q, n) items -> (Q, n) scores."""
        return self._inner.scores_of(self._users(queries), self._items(items))

    def _users(self, queries: NDArray[np.int64]) -> NDArray[np.int64]:
        known = (queries >= 0) & (queries < self.n_users)
        return np.where(known, self._user[np.where(known, queries, 0)], -1)

    def _items(self, items: NDArray[np.integer]) -> NDArray[np.int64]:
        return np.where(items >= 0, self._item[np.maximum(items, 0)], -1)

    def _excluded(self, exclude: Csr | None) -> Csr | None:
        if exclude is None:
            return None
        if self._matched is not None and self._matched[0] is exclude:  # one user at a time asks with one table
            return self._matched[1]
        user = self._user[np.repeat(np.arange(exclude.n_rows), exclude.degrees)]
        item = self._item[exclude.indices]
        both = (user >= 0) & (item >= 0)
        theirs = Csr.from_pairs(user[both], item[both], self._inner.n_users, self._inner.n_items)
        self._matched = (exclude, theirs)
        return theirs


def evaluate_bundle(
    bundle: Path,
    data: Path,
    *,
    split: str = "leave-last-out",
    part: str = "test",
    metrics: Sequence[str] = ("recall@10", "ndcg@10"),
    protocol: str = "full",
    like: str | None = None,
    seed: int = 0,
    on_bad_rows: OnBadRows = "error",
    latency: bool = True,
    listener: Listener | None = None,
) -> Comparison:
    """Measure a bundle on held-out data of a log.

    Args:
        bundle: the bundle's folder.
        data: a log that `read` understands.
        split: how the log is divided; "given" for its split column.
        part: "test" or "valid".
        metrics: names with a cut-off.
        protocol: "full" or "sampled(n)".
        like: another library's convention of metrics, "rectools", "lenskit", ... (docs/metrics.md); None for ours.
        seed: of a random split and of sampled items.
        on_bad_rows: "error", or "skip" to count them and show the first ten.
        latency: whether to time it.
        listener: told what was read and how much matched.

    Raises:
        BundleError: the bundle is broken.
        UnknownName: no such metric, convention, split or part.
        DataError: the log cannot be read, or has no user or item in common with the bundle.
    """
    listener = listener if listener is not None else Silent()
    if part not in ("test", "valid"):
        raise UnknownName("part", part, ["test", "valid"])
    asked = [parse(metric) for metric in metrics]  # before a long log is read, not after
    found = None if like is None else convention(like)
    if found is not None:
        found.check(asked, protocol)
    if not metrics:
        raise UsageError(problem("Nothing to measure: no metric was named", remedy="For example ndcg@10"))
    n = sampled(protocol)
    if split not in HOWS:
        raise UnknownName("split", split, HOWS)
    opened = bundles.open(bundle, verify="full")
    listener.begin(f"Reading {data}")
    log = read(data, on_bad_rows=on_bad_rows, echo=None)
    parts = divide(log, split, seed=seed)
    held = as_seen_by(found, parts.test if part == "test" else parts.valid, parts.valid)
    for note in (*log.notes, *parts.notes):
        listener.say(note)
    inner = ranker(opened.manifest.kind, opened.arrays)
    user, item = rows_in(opened.users, log.users), rows_in(opened.items, log.items)
    for what, rows in (("users", user), ("items", item)):
        known = int((rows >= 0).sum())
        listener.say(f"The bundle knows {known:,} of the log's {len(rows):,} {what}.")
        if not known:
            remedy = "Evaluate on a log of the users and items the bundle was trained on"
            raise DataError(problem(f"The bundle and the log have no {what} in common", remedy=remedy))
    if trained := trained_on(opened, held):
        listener.say(
            f"Warning: the bundle was trained on {trained:,} of these {len(held):,} {part} targets, so the figures "
            "below flatter it. Use the split and the seed it was trained with, or a later log."
        )
    if part == "test" and opened.manifest.lineage.get("users") == AFTER_TRAINING and len(parts.valid):
        listener.say(
            f"The bundle's users stand where training left them. A card of its {opened.manifest.model} was measured "
            "after the validation item, so it says more than the figures below."
        )
    candidates = None if n is None else draw(parts, n, seed=seed)
    system = System(
        bundle.name,
        Matched(inner, user, item),
        model=label(opened.manifest.model, _model_settings(opened.manifest.settings)),
        parameters=opened.manifest.n_parameters,
        bytes=bytes_on_disk(bundle),
        citations=tuple(opened.manifest.citations),
    )
    systems = {bundle.name: system}
    return compare(
        systems, held, metrics=metrics, protocol=protocol, candidates=candidates, like=found, latency=latency
    )


def _model_settings(settings: object) -> dict[str, object]:
    inner = settings.get("model") if isinstance(settings, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return dict(inner) if isinstance(inner, dict) else {}  # pyright: ignore[reportUnknownArgumentType]
