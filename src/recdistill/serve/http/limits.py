"""What one client may ask of the server; whatever goes beyond is refused by a message that names the limit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recdistill.settings import Settings

__all__ = ["ID_LENGTH", "Limits"]

ID_LENGTH = 256
"""The most characters of one external id in a request."""

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Limits(Settings):
    """The limits of a server; the defaults suit a few cores and some thousand requests a second."""

    body: Count = 1 << 20
    """Bytes of a request's body: 413 above."""
    availability_body: Count = 64 << 20
    """Bytes of a body that sets the availability list: 413 above."""
    k: Count = 1000
    """Items of one list: 422 above."""
    history: Count = 1000
    """Items of one history: 422 above."""
    listed: Count = 10_000
    """Ids in each of `exclude`, `candidates` and `available` of one request: 422 above."""
    batch: Count = 256
    """Requests in one call of the batch form: 422 above."""
    events: Count = 10_000
    """Events in one post: 422 above."""
    concurrency: Count = 512
    """Requests being answered at a time: 429 above."""
    connections: Count = 4096
    """Open connections: the server closes what comes beyond them at once."""
    waiting_events: Count = 100_000
    """Events that wait to be written: 429 above."""
    head: Count = 32 << 10
    """Bytes of a request's line and headers: 431 above."""
    seconds: Seconds = 10.0
    """From a request's headers to its answer: 408 while its body is still to come, 503 after."""
    idle: Seconds = 30.0
    """A connection may be quiet, or dribble the headers of a request, for so long; then it is closed."""
    drain: Seconds = 30.0
    """What a shutdown grants to requests that are being answered."""
