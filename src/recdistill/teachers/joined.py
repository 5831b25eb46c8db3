"""Several teachers as one: lists from one file, vectors from another."""

from __future__ import annotations

import hashlib
from functools import reduce
from typing import TYPE_CHECKING

from typing_extensions import override

from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind, View, fingerprint_of
from recdistill.teachers.kept import Stored

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.knowledge.view import Knows, Layer
    from recdistill.losses.linear_kl import Linear
    from recdistill.query import Query, Side

__all__ = ["Joined", "joined"]


def joined(*teachers: Knows) -> Joined:
    """One teacher out of several: each kind of knowledge comes from the first that provides it.

    A query is known when every teacher that is asked for something knows it.

    Raises:
        UsageError: no teacher is given, or one adds nothing to those before it.
    """
    if not teachers:
        raise UsageError(problem("Joining needs at least one teacher"))
    serves: dict[Kind, Knows] = {}
    for place, teacher in enumerate(teachers):
        new = teacher.provides - serves.keys()
        if not new:
            kinds = ", ".join(sorted(teacher.provides)) or "nothing"
            raise UsageError(
                problem(
                    f"Teacher {place + 1} of {len(teachers)} provides {kinds}, which those before it provide already",
                    remedy="Leave it out, or put it first",
                )
            )
        serves |= dict.fromkeys(new, teacher)
    return Joined(teachers, serves)


class Joined:
    """Several teachers, each asked for what it is the first to provide."""

    def __init__(self, teachers: tuple[Knows, ...], serves: dict[Kind, Knows]) -> None:
        """Use `joined`."""
        self.teachers, self._serves = teachers, serves

    @property
    def provides(self) -> frozenset[Kind]:
        """What any of them provides."""
        return frozenset(self._serves)

    def view(self, query: Query) -> View:
        """What they know of a batch of queries."""
        views = {id(teacher): teacher.view(query) for teacher in self.teachers}
        return _JoinedView({kind: views[id(teacher)] for kind, teacher in self._serves.items()})

    @property
    def coverage(self) -> str:
        """The reports of those that were matched to training tables, one after the other."""
        return "\n".join(str(t.coverage) for t in self.teachers if isinstance(t, Stored | Joined))

    @property
    def fingerprint(self) -> str:
        """A digest of theirs, in their order."""
        parts = "\n".join(map(fingerprint_of, self.teachers))
        return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


class _JoinedView(View):
    def __init__(self, views: dict[Kind, View]) -> None:
        self._views = views
        self.source = " with ".join(dict.fromkeys(view.source for view in views.values()))

    @override
    def known(self) -> Tensor:
        distinct = {id(view): view for view in self._views.values()}
        return reduce(lambda a, b: a & b, (view.known() for view in distinct.values()))

    @override
    def has(self, side: Side, ids: Tensor) -> Tensor | None:
        return self._of(Kind.VECTORS).has(side, ids)

    @override
    def select(self, index: Tensor) -> View:
        distinct = {id(view): view.select(index) for view in self._views.values()}
        return _JoinedView({kind: distinct[id(view)] for kind, view in self._views.items()})

    @override
    def scores(self, items: Tensor) -> Tensor:
        return self._of(Kind.SCORES).scores(items)

    @override
    def scores_among(self, items: Tensor) -> Tensor:
        return self._of(Kind.SCORES).scores_among(items)

    @override
    def linear(self) -> Linear | None:
        return self._of(Kind.SCORES).linear()

    @override
    def log_partition(self, without: Tensor, *, chunk: int | None = None) -> Tensor:
        return self._of(Kind.SCORES).log_partition(without, chunk=chunk)

    @override
    def ranked(self, k: int) -> Tensor:
        return self._of(Kind.RANKS).ranked(k)

    @override
    def entities(self, side: Side, ids: Tensor, layer: Layer = "served") -> Tensor:
        return self._of(Kind.VECTORS).entities(side, ids, layer)

    @override
    def states(self) -> Tensor:
        return self._of(Kind.STATES).states()

    def _of(self, kind: Kind) -> View:
        view = self._views.get(kind)
        if view is None:
            raise self._missing(kind)
        return view
