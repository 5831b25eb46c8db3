"""An approximate index over a bundle's items, with the effort that finds nearly all of the exact lists.

Longest vectors first: in a graph that grows from them, the recall of inner products at the same effort is much higher
than in any other order (docs/benchmarks.md), for voyager adds one dimension that makes all lengths equal, and knows the
greatest only when it has seen it. Letters: I items, d dims, Q queries.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.bundle.ann import IndexPart, library
from recdistill.bundle.manifest import IndexEntry
from recdistill.errors import BundleError, UsageError, problem
from recdistill.export.agreement import K

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydantic import JsonValue

    from recdistill.evaluation.vectors import VectorRanker

__all__ = ["RECALL", "index"]

RECALL = 0.99
"""Of the exact best ten that must be found; else exact search stays."""

_EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_TIMED = 64
_MILLION = 1_000_000


def index(exact: VectorRanker, rows: NDArray[np.int64], built_from: str, *, threads: int = 1) -> IndexPart:
    """Build an index, and raise its effort until the recall on these users is high enough.

    Args:
        exact: the bundle's ranker.
        rows: (Q,) its users that recall is measured on.
        built_from: sha256 of the file that holds the vectors.
        threads: for the building; one gives the same file every time.

    Raises:
        UsageError: voyager is missing, or there are no users or too few items.
        BundleError: no effort reaches the recall; exact search stays.
    """
    made: Any = library()
    users = exact.vectors_of_users(rows)
    rows = rows[users.any(axis=1)]  # to whom all items are equal, lists are found exactly
    if exact.n_items < 2 * K or not len(rows):
        remedy = "Exact search takes microseconds there"
        raise UsageError(problem("An index needs users and a catalogue", (len(rows), exact.n_items), remedy=remedy))
    item = exact.vectors_of_items(np.arange(exact.n_items))  # (I, d)
    order = np.argsort(-np.einsum("nd,nd->n", item, item, dtype=np.float64), kind="stable")
    links, view = (16, 200) if exact.n_items < _MILLION else (20, 200)
    graph = made.Index(
        made.Space.InnerProduct,
        num_dimensions=exact.d,
        M=links,
        ef_construction=view,
        random_seed=0,
        max_elements=exact.n_items,
    )
    began = perf_counter()
    graph.add_items(item[order], ids=order, num_threads=threads)
    seconds = perf_counter() - began
    wanted = exact.top_k(rows, K)  # (Q, 10)
    users = exact.vectors_of_users(rows)  # (Q, d)
    recall, effort = 0.0, 0
    for effort in _EFFORTS:
        found, _ = graph.query(users, k=K, num_threads=1, query_ef=min(effort, exact.n_items))
        recall = float((wanted[:, :, None] == found.astype(np.int64)[:, None, :]).any(2).mean())
        if recall >= RECALL:
            break
    if recall < RECALL:
        what = f"The index finds {recall:.4f} of the exact best ten with ef {effort}, the most that was tried"
        remedy = "Nothing was written: exact search serves this bundle"
        raise BundleError(problem(what, allowed=f"at least {RECALL:g}", remedy=remedy))
    some = rows[:_TIMED]
    began = perf_counter()
    graph.query(users[: len(some)], k=K, num_threads=1, query_ef=effort)
    approximate = perf_counter() - began
    began = perf_counter()
    exact.top_k(some, K)
    together = perf_counter() - began
    measured: dict[str, JsonValue] = {
        "queries": len(rows),
        "links": links,
        "seconds to build": round(seconds, 3),
        "milliseconds a list": round(1e3 * approximate / len(some), 4),
        f"milliseconds a list, exact, {len(some)} together": round(1e3 * together / len(some), 4),
    }
    entry = IndexEntry(built_from=built_from, effort=effort, recall=recall, measured=measured)
    return IndexPart(graph.as_bytes(), entry)
