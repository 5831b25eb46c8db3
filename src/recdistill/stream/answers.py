"""Answers between updates: who is in the serving version by the model, who is new by a fold-in of what they clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill import bundle
from recdistill.errors import UsageError, problem
from recdistill.ledger.versions import learned
from recdistill.serve.foldin import FoldIn
from recdistill.serve.recommendations import Recommendations
from recdistill.serve.service import Service
from recdistill.stream.chain import unserved

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recdistill.serve.arguments import Ids
    from recdistill.stream.stream import Stream

__all__ = ["answer"]


def answer(
    stream: Stream, users: Sequence[str], k: int = 10, *, clicks: Mapping[str, Ids] | None = None
) -> Recommendations:
    """The best items for users, in the order given; the source says "model", "fold-in" or "popular".

    What users did since the version that answers counts: new ones are folded in from it, of known ones it is left out.

    Args:
        stream: its serving version answers.
        users: external ids; repeated ones are answered once.
        k: how many items each.
        clicks: what users did that the ledger does not hold yet, by user: item ids, of this very moment.

    Raises:
        UsageError: nothing is served yet, or the version has no vectors to fold into.
    """
    name = stream.versions.serving()
    if name is None:
        raise unserved(stream.journal())
    version = bundle.open(stream.versions.path(name))
    service = Service.from_bundle(stream.versions.path(name))
    users = list(dict.fromkeys(users))
    known = service.users.rows(users) >= 0
    new = [user for user, there in zip(users, known.tolist(), strict=True) if not there]
    late = stream.ledger.items_of(users, learned(version))
    told = {user: [*late.get(user, ()), *map(str, (clicks or {}).get(user, ()))] for user in users}
    old = [user for user, there in zip(users, known.tolist(), strict=True) if there]
    parts = [service.recommend(old, k, exclude={user: _known(service, told[user]) for user in old})]
    if new:
        if version.manifest.kind != "vectors":
            what = "A fold-in needs vectors of users and items; the serving version ranks by something else"
            raise UsageError(problem(what, version.manifest.kind, allowed="vectors"))
        user, item = version.arrays["user"], version.arrays["item"]
        parts.append(FoldIn(service, user, item).recommend({one: told[one] for one in new}, k))
    return _in_order(parts, users)


def _known(service: Service, items: Sequence[str]) -> list[str]:
    """Without what the version does not have: nobody asked to leave that out, so there is nothing to note."""
    return [one for one, row in zip(items, service.items.rows(items).tolist(), strict=True) if row >= 0]


def _in_order(parts: Sequence[Recommendations], users: Sequence[str]) -> Recommendations:
    """Several answers as one, by the order of the users."""
    asked = np.concatenate([np.array([str(one) for one in part.asked.tolist()], dtype=object) for part in parts])
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    starts = np.cumsum(counts) - counts
    place = {user: at for at, user in enumerate(asked.tolist())}
    order = np.array([place[user] for user in users], np.int64)
    flat = np.concatenate([np.arange(s, s + n) for s, n in zip(starts[order], counts[order], strict=True)] or [order])
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])[flat]
        for name in ("item_id", "rank", "score", "source")
    }
    return Recommendations(
        asked=asked[order],
        offsets=np.r_[0, np.cumsum(counts[order])].astype(np.int64),
        user_id=np.repeat(asked[order], counts[order]),
        notes=tuple(note for part in parts for note in part.notes),
        **columns,
    )
