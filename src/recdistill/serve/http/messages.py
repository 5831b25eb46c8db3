"""What goes over the wire: requests as strict as their schema, answers, and the one form of every refusal."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from recdistill.serve.http.limits import ID_LENGTH

__all__ = [
    "About",
    "Answer",
    "Answers",
    "Available",
    "BatchQuery",
    "Compared",
    "Event",
    "Events",
    "Failure",
    "Found",
    "Id",
    "Listed",
    "Live",
    "Made",
    "Query",
    "Ready",
    "Received",
    "Refused",
    "Rollback",
    "Similar",
    "Timing",
    "VersionTold",
    "Why",
    "Wrong",
]

_Text = Annotated[str, Meta(min_length=1, max_length=ID_LENGTH)]
_Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Id = _Text | _Number
"""An external id: text, or an integer of 64 bits. A table of integers takes "12" as 12."""

Why = Literal["known-user", "folded-in", "history", "popular"]
"""What made a list: the user's own vector, a fold-in of the history, the encoder that read it; or nobody is known."""


class Query(Struct, frozen=True, forbid_unknown_fields=True):
    """One list: for a user, for a history, or for a user after a history."""

    user: Id | UnsetType = UNSET
    """External id. One whom the version does not know is answered by the history, else by the popular list."""
    history: list[Id] | UnsetType = UNSET
    """Item ids, oldest first: what a visitor did, or a user since the version was trained."""
    k: Annotated[int, Meta(ge=1)] = 10
    """How many items; fewer come back where fewer are left."""
    exclude: list[Id] = []
    """Item ids to leave out."""
    candidates: list[Id] | UnsetType = UNSET
    """Only these item ids are ranked."""
    available: list[Id] | UnsetType = UNSET
    """Item ids that may be shown now, beside the availability list of the version."""
    filter_seen: bool = True
    """Leave out what the user has already, and what stands in the history."""


class BatchQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Several queries, answered by one version."""

    requests: Annotated[list[Query], Meta(min_length=1)]


class Timing(Struct, frozen=True):
    """Milliseconds inside the server."""

    waited_ms: float
    """In the queue, for others to join the batch and for the batch before."""
    computed_ms: float
    """Of the whole batch."""
    batch: int
    """How many queries were computed together."""


class Answer(Struct, frozen=True):
    """One list."""

    items: list[str | int]
    """Best first."""
    scores: list[float | None] | None
    """One for each item, greater is better; null for a popular list, which no model scored."""
    why: Why
    version: str
    timing: Timing
    notes: list[str] = []
    """What was ignored, and how often."""


class Answers(Struct, frozen=True):
    """The lists of a batch, in its order."""

    answers: list[Answer]
    version: str


class Compared(Struct, frozen=True):
    """A student's list beside its teacher's."""

    student: Answer
    teacher: Answer | None
    """Null where the server was started without a teacher."""
    overlap: float | None
    """The share of the longer list that both have, 0 to 1; null without a teacher, or with two empty lists."""


class Similar(Struct, frozen=True):
    """The items whose vectors stand closest to one item's."""

    items: list[str | int]
    scores: list[float]
    """Cosines, -1 to 1."""
    version: str
    timing: Timing


class Found(Struct, frozen=True):
    """Items whose id begins with a text."""

    items: list[str | int]
    version: str


class Event(Struct, frozen=True, forbid_unknown_fields=True):
    """Something that a user did."""

    id: Id
    """What the event is known by: posted again, it counts once."""
    user: Id
    item: Id
    timestamp: Annotated[int, Meta(ge=0, le=2**53)] | UnsetType = UNSET
    """Unix seconds; the time of arrival where it is left out."""
    weight: Annotated[float, Meta(ge=-1e30, le=1e30)] = 1.0


class Events(Struct, frozen=True, forbid_unknown_fields=True):
    """Events to append."""

    events: Annotated[list[Event], Meta(min_length=1)]


class Received(Struct, frozen=True):
    """The events are on disk."""

    received: int
    """Every one of them is in the ledger, whether it came for the first time or again; what is of people who asked to
    be forgotten stays out."""


class Available(Struct, frozen=True, forbid_unknown_fields=True):
    """Sets the availability list of the version that is served, until the next version."""

    items: list[Id] | None
    """What may be shown now; null lifts the list."""


class Listed(Struct, frozen=True):
    """The availability list as it stands."""

    version: str
    available: int | None
    """How many items of the version are on it; null where there is none."""
    unknown: int
    """How many ids of the list the version does not have."""


class Rollback(Struct, frozen=True, forbid_unknown_fields=True):
    """Goes back to an earlier version."""

    to: Annotated[str, Meta(max_length=100, pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]*$")] | UnsetType = UNSET
    """A version of the stream; the one that was served before where it is left out."""


class VersionTold(Struct, frozen=True):
    """The version that is served now."""

    version: str


class Refused(Struct, frozen=True):
    """A version that did not pass its checks; the one before it serves on."""

    version: str
    reason: str


class Gated(Struct, frozen=True):
    """A candidate that the gates of a stream refused; the version before it serves on."""

    cycle: int
    candidate: Literal["student", "distilled"]
    """The student that learned the cycle's block, or the one distilled at its end."""
    why: list[str]
    """The checks that failed, with their figures."""


class Live(Struct, frozen=True):
    """The process runs."""

    status: Literal["ok"] = "ok"


class Ready(Struct, frozen=True):
    """Whether requests will be answered."""

    ready: bool
    version: str | None
    previous: str | None
    """What `rollback` would go back to without loading anything."""
    refused: Refused | None
    """The newest version that was refused, until one is accepted; of a server with a token, told to who sends it."""
    gated: Gated | None
    """The newest candidate of a stream, where its gates refused it; it was never a version. Told as `refused` is."""
    status: Literal["ready", "starting", "draining"]


class Made(Struct, frozen=True):
    """What a version is made of."""

    version: str
    model: str
    parameters: int
    bytes: int


class About(Struct, frozen=True):
    """What the server serves: for the page at `/`."""

    version: str
    model: str
    users: int
    items: int
    parameters: int
    bytes: int
    search: str
    """How lists are found: "exact", or "approximate: ..." with the recall that was measured."""
    reads: Literal["history", "folded-in"] | None
    """How a history becomes a vector; null where the model takes none."""
    teacher: Made | None
    examples: list[str | int]
    """A few users that the version knows."""
    events: bool
    """Whether events are taken."""


class Wrong(Struct, frozen=True, omit_defaults=True):
    """Why a request was refused."""

    code: str
    """Short and stable, for programs: "too-many", "not-json", "busy" ..."""
    message: str
    """For people."""
    limit: str | None = None
    """Which limit was met, by its name in the settings."""
    allowed: int | float | None = None
    """The value of that limit."""


class Failure(Struct, frozen=True):
    """The body of every answer that is not 2xx."""

    error: Wrong


ENCODER = msgspec.json.Encoder()
"""Shared: it holds no state between calls."""
