"""Many queries answered as few: those that agree in what `Service` takes per call share one call.

Letters: Q queries, g of them in one group.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from msgspec import UNSET
from msgspec.structs import replace

from recdistill.serve.http.limits import ID_LENGTH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recdistill.serve.http.messages import Id, Query, Why
    from recdistill.serve.http.version import Version
    from recdistill.serve.recommendations import Recommendations
    from recdistill.serve.service import Service

__all__ = ["Lists", "answer"]

_LENGTHS = (16, 128, 1024, 1 << 30)
"""Queries of about one length are ranked together, so that one long list does not make all of them long."""
_NOBODY = "?" * (ID_LENGTH + 1)
"""An id that no request can ask for."""

_How = Literal["user", "user-history", "history"]
_Key = tuple[_How, int, bool, "tuple[Id, ...] | None", "tuple[Id, ...] | None", int]


@dataclass(frozen=True, slots=True)
class Lists:
    """What one query is answered."""

    items: list[str | int]
    scores: list[float | None] | None
    why: Why
    notes: list[str]


def answer(
    version: Version, queries: Sequence[Query], recent: Mapping[str, Sequence[str]] | None = None
) -> list[Lists]:
    """(Q,) queries -> (Q,) lists, each what it would be if it had been asked alone.

    Args:
        version: answers.
        queries: what is asked.
        recent: user -> what people did since the version; it comes before their history.
    """
    known = _Known(version, queries)
    notes = _notes(version, queries)  # of what was asked: nobody sent what the ledger holds
    if recent and version.reads is not None:
        queries = [_reminded(query, recent) for query in queries]
    found: dict[int, Lists] = {}
    for key, places in _groups(version, queries, known).items():
        service = version.service if key[4] is None else version.among(key[4])
        if service is None:  # nothing that may be shown
            found.update((place, Lists([], None, "popular", notes[place])) for place in places)
            continue
        told = _asked(service, key, [queries[place] for place in places])
        _cut(told, version, key[0], queries, known=known, notes=notes, places=places, out=found)
    return [found[place] for place in range(len(queries))]


class _Known:
    """Whether the version knows the user of each query; looked up when it is first asked, which is seldom."""

    def __init__(self, version: Version, queries: Sequence[Query]) -> None:
        self._version, self._queries = version, queries
        self._found: list[bool] | None = None

    def __getitem__(self, place: int) -> bool:
        found = self._found
        if found is None:
            users = [_NOBODY if query.user is UNSET else query.user for query in self._queries]
            found = self._found = list(map(bool, self._version.service.users.rows(users) >= 0))
        return found[place]


def _reminded(query: Query, recent: Mapping[str, Sequence[str]]) -> Query:
    """A query with what the ledger holds of its user."""
    did = () if query.user is UNSET else recent.get(str(query.user), ())
    if not did:
        return query
    return replace(query, history=[*did, *([] if query.history is UNSET else query.history)])


def _groups(version: Version, queries: Sequence[Query], known: _Known) -> dict[_Key, list[int]]:
    groups: dict[_Key, list[int]] = defaultdict(list)
    times: dict[str | int, itertools.count[int]] = defaultdict(itertools.count)
    for place, query in enumerate(queries):
        how = _how(version, query, known, place)
        # what is left out goes by user: a user twice in a batch is then two calls
        apart = how == "user-history" or (how == "user" and bool(_left_out(query, how)))
        again = next(times[str(query.user)]) if apart else -1
        length = next(bound for bound in _LENGTHS if query.k <= bound)
        candidates = None if query.candidates is UNSET else tuple(query.candidates)
        available = None if query.available is UNSET else tuple(query.available)
        groups[how, length, query.filter_seen, candidates, available, again].append(place)
    return groups


def _how(version: Version, query: Query, known: _Known, place: int) -> _How:
    if query.history is UNSET or not query.history or version.reads is None:
        return "user"
    if not known[place]:
        return "history"
    # where histories are folded in, the user's own vector knows more than a fold-in of what came since
    return "user" if version.reads == "folded-in" else "user-history"


def _left_out(query: Query, how: _How) -> list[Id]:
    """What leaves one list: `exclude`, and a history that the model itself does not read."""
    if how == "user" and query.filter_seen and query.history is not UNSET:
        return [*query.exclude, *query.history]
    return query.exclude


def _asked(service: Service, key: _Key, group: Sequence[Query]) -> Recommendations:
    """(g,) queries that agree -> one call."""
    how, _, filter_seen, only, _, _ = key
    k = max(query.k for query in group)
    users = [_NOBODY if query.user is UNSET else query.user for query in group]
    names: Sequence[str | int] = range(len(group)) if how == "history" else users
    own = {name: left for name, query in zip(names, group, strict=True) if (left := _left_out(query, how))}
    exclude, candidates = own or None, None if only is None else list(only)
    if how == "user":
        return service.recommend(users, k, filter_seen=filter_seen, exclude=exclude, candidates=candidates)
    after = [[] if query.history is UNSET else query.history for query in group]
    asked = after if how == "history" else dict(zip(users, after, strict=True))
    return service.recommend_after(asked, k, filter_seen=filter_seen, exclude=exclude, candidates=candidates)


def _cut(
    told: Recommendations,
    version: Version,
    how: _How,
    queries: Sequence[Query],
    *,
    known: _Known,
    notes: Sequence[list[str]],
    places: Sequence[int],
    out: dict[int, Lists],
) -> None:
    """Columns of a whole group -> its lists, each as long as its query asked."""
    items, scores = told.item_id.tolist(), told.score.tolist()
    offsets, popular = told.offsets.tolist(), (told.source == "popular").tolist()
    for at, place in enumerate(places):
        begin, end = offsets[at], min(offsets[at + 1], offsets[at] + queries[place].k)
        fallback = popular[begin] if begin < end else not _is_told(version, how, queries[place], known=known[place])
        why: Why = "known-user" if how == "user" else version.reads or "history"
        out[place] = Lists(
            items[begin:end],
            None if fallback else scores[begin:end],
            "popular" if fallback else why,
            notes[place],
        )


def _is_told(version: Version, how: _How, query: Query, *, known: bool) -> bool:
    """Whether an empty list is the model's: it knows the user, or something of the history."""
    if known or how == "user" or query.history is UNSET:
        return known
    return bool((version.service.items.rows(query.history) >= 0).any())


def _notes(version: Version, queries: Sequence[Query]) -> list[list[str]]:
    """What of each query's own ids the catalogue does not have."""
    asked = [
        [(what, ids) for what, ids in (("history", query.history), ("exclude", query.exclude)) if ids]
        + [(what, ids) for what, ids in (("candidates", query.candidates), ("available", query.available)) if ids]
        for query in queries
    ]
    flat = [one for lists in asked for _, ids in lists if ids is not UNSET for one in ids]
    if not flat:
        return [[] for _ in queries]
    unknown: list[bool] = (version.service.items.rows(flat) < 0).tolist()
    at, out = 0, list[list[str]]()
    for query, lists in zip(queries, asked, strict=True):
        said: list[str] = []
        for what, ids in lists:
            if ids is UNSET:
                continue
            lacking = sum(unknown[at : at + len(ids)])
            at += len(ids)
            if lacking:
                said.append(f"{what}: {lacking:,} of {len(ids):,} items are not in the catalogue and were ignored")
            if what == "history" and version.reads is None:
                said.append("history: this model reads none; it was left out of the list only")
        del query
        out.append(said)
    return out
