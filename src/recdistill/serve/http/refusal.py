"""A request that is not answered as asked: what becomes of it over HTTP."""

from __future__ import annotations

from recdistill.serve.http.messages import Failure, Wrong

__all__ = ["Refusal", "beyond"]


class Refusal(Exception):
    """A status, and the reason as the client is told it.

    Args:
        status: of HTTP, 400 or above.
        code: short and stable, for programs.
        message: for people; holds nothing that the client did not say or that others must not know.
        limit: the limit that was met, by its name in `Limits`.
        allowed: its value.
        headers: more headers of the answer, names in lower case.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        limit: str | None = None,
        allowed: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}
        self.failure = Failure(Wrong(code, message, limit, allowed))


def beyond(status: int, limit: str, what: str, found: int | None, allowed: float) -> Refusal:
    """A limit was met: `beyond(422, "k", "items of one list", 5000, 1000)`."""
    said = "" if found is None else f"; got {found:,}"
    headers = {"retry-after": "1"} if status == 429 else None
    code = {413: "too-large", 422: "too-many", 429: "busy", 431: "too-large"}[status]
    message = f"At most {allowed:,} {what} (limit {limit!r}){said}."
    return Refusal(status, code, message, limit=limit, allowed=allowed, headers=headers)
