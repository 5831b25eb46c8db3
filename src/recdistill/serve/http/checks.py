"""A query within the limits of this server, beyond what its schema says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from recdistill.serve.http.refusal import Refusal, beyond

if TYPE_CHECKING:
    from recdistill.serve.http.limits import Limits
    from recdistill.serve.http.messages import Query

__all__ = ["checked"]


def checked(query: Query, limits: Limits) -> None:
    """Let a query pass.

    Raises:
        Refusal: 422, naming the limit; or nobody is asked for.
    """
    if query.user is UNSET and query.history is UNSET:
        raise Refusal(422, "invalid", "Say for whom: 'user', or 'history', or both.")
    if query.k > limits.k:
        raise beyond(422, "k", "items of one list", query.k, limits.k)
    if query.history is not UNSET and len(query.history) > limits.history:
        raise beyond(422, "history", "items of one history", len(query.history), limits.history)
    for name, ids in (("exclude", query.exclude), ("candidates", query.candidates), ("available", query.available)):
        if ids is not UNSET and len(ids) > limits.listed:
            raise beyond(422, "listed", f"ids in {name!r}", len(ids), limits.listed)
