"""What a method is: settings, a paper, and a function from a setting to passes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.query import Query
from recdistill.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from recdistill.data.draws import Taken
    from recdistill.knowledge.view import Knows, Layer
    from recdistill.methods.ranges import Range
    from recdistill.models.base import Recommender
    from recdistill.objective import Batches, Pass, Term
    from recdistill.query import Side
    from recdistill.settings import Settings

    S = TypeVar("S", bound=Settings)
    T = TypeVar("T")

__all__ = ["METHODS", "MethodEntry", "Paper", "Setting", "method", "served_by", "width"]


@dataclass(frozen=True, slots=True)
class Paper:
    """Where a method comes from."""

    key: str
    title: str
    authors: str
    venue: str
    year: int
    url: str

    def bibtex(self) -> str:
        """The entry to cite."""
        kind, of = _published(self.venue)
        fields = {"title": self.title, "author": self.authors, of: self.venue, "year": self.year, "url": self.url}
        body = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
        return f"@{kind}{{{self.key},\n{body}}}"


def _published(venue: str) -> tuple[str, str]:
    """The kind of a BibTeX entry, and its field for the venue."""
    if venue.startswith("arXiv"):
        return "misc", "howpublished"
    if any(word in venue.split() for word in ("Journal", "Letters", "Sciences", "Transactions")):
        return "article", "journal"
    return "inproceedings", "booktitle"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run gives a method to build on."""

    student: Recommender
    batches: Batches
    base: Term
    """The student's own loss over the interactions."""
    taken: Taken
    """The training items of every user, on the device."""
    n_users: int
    seed: int
    teacher: Knows | None = None
    batches_of: Callable[[Recommender], Batches] | None = None
    """The same interactions as another model learns from them; None = as the student does."""

    def need_teacher(self, method: str) -> Knows:
        """The teacher, or an error that says which method asks for one."""
        if self.teacher is None:
            remedy = "Give a teacher: a trained model, or lists, scores or vectors of one"
            raise UsageError(problem(f"The method {method!r} needs a teacher", remedy=remedy))
        return self.teacher


def width(s: Setting, of: Recommender | Knows, side: Side, layer: Layer = "served") -> int:
    """How wide the vectors of one side are; 1 of who has none, whom the loop refuses before its first step."""
    if Kind.VECTORS not in of.provides:
        return 1
    device = next(s.student.parameters()).device  # a teacher is asked there too
    nobody, first = (torch.zeros(n, dtype=torch.int64, device=device) for n in (0, 1))
    return of.view(Query(nobody)).entities(side, first, layer).shape[1]


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """A registered method."""

    name: str
    settings: type[Settings]
    paper: Paper
    build: Callable[[Any, Setting], list[Pass]]
    summary: str
    asks: Callable[[Any], frozenset[Kind]]
    """Settings -> what its terms ask of a teacher; known before anything is read or built."""
    tuned: Callable[[Any], Mapping[str, Range]] = field(default=lambda _: {})
    """Settings -> those that are worth tuning, by dotted key, and in which range."""


METHODS: Registry[MethodEntry] = Registry("method")


def served_by(provides: frozenset[Kind]) -> list[str]:
    """The methods whose default settings ask for nothing else, by name; "plain" asks for nothing and is left out."""
    asked = {name: METHODS[name].asks(METHODS[name].settings()) for name in METHODS}
    return [name for name, kinds in asked.items() if kinds and kinds <= provides]


def method(
    name: str,
    *,
    settings: type[S],
    paper: Paper,
    asks: Iterable[Kind] | Callable[[S], frozenset[Kind]],
    tuned: Mapping[str, Range] | Callable[[S], Mapping[str, Range]] | None = None,
) -> Callable[[Callable[[S, Setting], list[Pass]]], Callable[[S, Setting], list[Pass]]]:
    """Register `build(settings, setting) -> passes` under `name`; the docstring's first line is its summary.

    Args:
        name: as users write it.
        settings: of the method.
        paper: what is cited.
        asks: the kinds that its terms ask of a teacher, where they depend on the settings a function of them.
        tuned: the settings worth tuning, by dotted key, and their ranges, which hold the defaults; few, since a search
            has few trials; None for nothing. Where they depend on the settings, a function of them.
    """
    needed = asks if callable(asks) else _always(frozenset(asks))
    ranges = tuned if callable(tuned) else _always(tuned or {})

    def register(build: Callable[[S, Setting], list[Pass]]) -> Callable[[S, Setting], list[Pass]]:
        summary = (build.__doc__ or "").strip().split("\n", 1)[0]
        METHODS.add(name, MethodEntry(name, settings, paper, build, summary, needed, ranges))
        return build

    return register


def _always(value: T) -> Callable[[object], T]:
    return lambda _: value
