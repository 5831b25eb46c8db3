"""PUBLISH: a student as a bundle beside the others; and the version that is served, as the gates ask it.

A bundle holds the people who are there: the rows of the forgotten are left out, so its user rows are not the ledger's.
Its item rows are.

Letters: U users and I items of the ledger, V users and J items of the bundle, Q users asked.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from recdistill import bundle
from recdistill.data.csr import Csr
from recdistill.evaluation.ranking import ranker
from recdistill.external import CANONICAL
from recdistill.ids import IdTable
from recdistill.ledger.versions import Versions
from recdistill.stream.gates import Served
from recdistill.stream.measure import most_popular, popular

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.bundle.io import Bundle
    from recdistill.ledger import Ledger, Stored
    from recdistill.stream.protocol import Released

__all__ = ["publish", "served", "table"]

_POPULAR = 1000
_INT64_END = 2**63


def publish(
    released: Released,
    versions: Versions,
    ledger: Ledger,
    *,
    block: Stored,
    student: Stored,
    seen: Csr,
    seed: int,
    distilled: bool = False,
) -> str:
    """Write the version of a block's student, unless it is there already; its name.

    Args:
        released: the student.
        versions: where it goes.
        ledger: who has which id.
        block: the newest block.
        student: the stage's output.
        seen: U x I, what everyone did.
        seed: of the stream, told in the lineage.
        distilled: whether it is the student distilled after the block, not the one updated on it.
    """
    m = block.measured
    name = versions.name(m["number"], student.key, distilled=distilled)
    if versions.path(name).is_dir():
        return name
    ids = ledger.ids("user", seen.n_rows)
    there = np.array([row for row, one in enumerate(ids) if one is not None], np.int64)  # (V,)
    items = [one for one in ledger.ids("item", seen.n_columns) if one is not None]
    created = datetime.fromtimestamp(m["high"] or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    bundle.save(
        versions.path(name),
        kind=released.kind,
        arrays={key: array[there] if key.startswith("user") else array for key, array in released.arrays.items()},
        users=table([one for one in ids if one is not None]),
        items=table(items),
        seen=seen.select(there),
        popular=most_popular(block.arrays["train_item"], seen.n_columns)[:_POPULAR],
        model=released.model,
        settings=released.settings,
        lineage={"method": "stream", "cycle": m["number"], "events": m["last"], "student": student.key, "seed": seed},
        metrics={},
        citations=released.citations,
        created=created,  # of the newest event, so that a version is a function of the stream
    )
    return name


def table(ids: list[str]) -> IdTable:
    """Ids as a bundle holds them: integers where every one is an integer as `str` writes it, else text."""
    if all(CANONICAL.fullmatch(one) and abs(int(one)) < _INT64_END for one in ids):
        return IdTable.from_ids(np.array([int(one) for one in ids], np.int64))
    return IdTable.from_ids(ids)


def served(version: Bundle, ledger: Ledger, seen: Csr) -> Served:
    """A version as the gates ask it, by the ledger's rows."""
    ids = ledger.ids("user", seen.n_rows)
    row = np.full(len(ids), -1, np.int64)  # (U,) in the bundle
    there = [place for place, one in enumerate(ids) if one is not None]
    row[there] = version.users.rows([ids[place] or "" for place in there])
    model = ranker(version.manifest.kind, version.arrays)
    shape = len(version.users), len(version.items)

    def lists(users: NDArray[np.int64], k: int, without: Csr) -> NDArray[np.int64]:
        mine = without.select(users)  # (Q, I)
        line = np.repeat(row[users], mine.degrees)
        inside = (line >= 0) & (mine.indices < shape[1])
        return model.top_k(row[users], k, Csr.from_pairs(line[inside], mine.indices[inside], *shape))

    common = popular(np.asarray(version.popular))

    def answers(users: NDArray[np.int64], k: int, without: Csr) -> NDArray[np.int64]:
        return np.where((row[users] >= 0)[:, None], lists(users, k, without), common(users, k, without))

    return Served(answers, lists)
