"""`rd.teacher`: what another system knows, as a teacher, in one line.

A teacher from elsewhere is matched to the training log where that is known (`distill` does it); ids that have no match
are counted, and the count is printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from recdistill.errors import UsageError, problem
from recdistill.external import as_ids
from recdistill.teachers.callables import Scorer, listed, name_of
from recdistill.teachers.kept import StoredRanker
from recdistill.teachers.models import Saved, of_implicit, of_rectools
from recdistill.teachers.reading import Pairs, Tables
from recdistill.teachers.recbole import read_recbole
from recdistill.teachers.stored import Elsewhere, Files, Ours, of_pairs, of_tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.data.csr import Csr
    from recdistill.external import ExternalIds
    from recdistill.ids import IdTable
    from recdistill.teachers.callables import Answer
    from recdistill.teachers.kept import Stored

__all__ = ["Called", "Imported", "teacher"]


def teacher(
    *,
    lists: Path | str | None = None,
    scores: Path | str | None = None,
    vectors: Path | str | None = None,
    bundle: Path | str | None = None,
    recbole: Path | str | None = None,
    ids: Path | str | None = None,
    callable: Answer | None = None,
    implicit: object | None = None,
    rectools: object | None = None,
    users: ExternalIds | None = None,
    items: ExternalIds | None = None,
    log: object | None = None,
    dataset: object | None = None,
    k: int = 200,
) -> Elsewhere:
    """A teacher from elsewhere, still to be matched to a training log.

    Args:
        lists: a file of ranked lists; this and the next three as in `stored`, also several at once.
        scores: a file of scores.
        vectors: a file, or folder, of user and item vectors.
        bundle: a folder that recdistill saved.
        recbole: a RecBole checkpoint, `saved/BPR-....pth`, of a model whose scores are inner products. Nothing in it is
            run; what is no checkpoint of vectors is refused with the name it asks for.
        ids: with `recbole`: the data set RecBole saved (`save_dataset: True`), or an npz of `users` and `items`.
        callable: a function of (Q,) external user ids. With `items`: (Q, I') finite scores of those items, greater is
            better. Without: Q sequences of item ids, best first, or a pair of these and their scores.
        implicit: a fitted model of implicit, or the npz that `model.save` wrote, with `users` and `items`; one without
            factors (nearest neighbours) needs `log` too.
        rectools: a fitted model of RecTools, with its `dataset`.
        users: with `implicit`: external ids of the model's user rows.
        items: with `implicit` and `callable`: external ids of the item rows.
        log: with `implicit`: the CSR matrix (users, items) it was fitted on.
        dataset: with `rectools`: the Dataset it was fitted on.
        k: how long the lists of a model without vectors are, at least 1.

    Raises:
        UsageError: no source, more than one that is no file, or an argument that belongs to another source.
        DataError: a model or checkpoint that cannot be used.
    """
    files = {"lists": lists, "scores": scores, "vectors": vectors, "bundle": bundle}
    others = {"recbole": recbole, "callable": callable, "implicit": implicit, "rectools": rectools}
    given = [name for name, value in others.items() if value is not None]
    with_files = [name for name, value in files.items() if value is not None]
    if len(given) + bool(with_files) > 1:
        what = "A teacher comes from files, or from one other place"
        remedy = "Make a teacher of each, and join them: recdistill.teachers.joined.joined(first, second)"
        raise UsageError(problem(what, [*with_files, *given], remedy=remedy))
    beside = {"ids": ids, "users": users, "items": items, "log": log, "dataset": dataset}
    own = _BESIDE[given[0]] if given else ()
    stray = [name for name, value in beside.items() if value is not None and name not in own]
    if stray:
        belongs = ", ".join(kind for kind, names in _BESIDE.items() if stray[0] in names)
        raise UsageError(problem(f"The argument {stray[0]!r} does not belong here", allowed=f"with {belongs}"))
    if k < 1:
        raise UsageError(problem("A list has at least one item", k))
    if callable is not None:
        if not hasattr(callable, "__call__"):  # noqa: B004 - the name is an argument's here
            remedy = "teacher(callable=lambda user_ids: ...), which answers with lists, or with scores of `items`"
            raise UsageError(problem("A callable is a function of external user ids", callable, remedy=remedy))
        return Called(callable, None if items is None else as_ids(items))
    if isinstance(implicit, Path | str):
        path = Path(implicit)
        found = of_implicit(Saved.read(path), users=users, items=items, log=log, k=k)
        return Imported(f"the teacher implicit {path.name!r}", found)
    if implicit is not None:
        found = of_implicit(implicit, users=users, items=items, log=log, k=k)
        return Imported(f"the teacher {type(implicit).__name__} of implicit", found)
    if rectools is not None:
        found = of_rectools(rectools, dataset=dataset, k=k)
        return Imported(f"the teacher {type(rectools).__name__} of RecTools", found)
    if recbole is not None:
        if ids is None:
            remedy = "teacher(recbole='saved/BPR.pth', ids='saved/name-Dataset.pth'), written with `save_dataset: True`"
            raise UsageError(problem("A checkpoint of RecBole knows rows, not ids", remedy=remedy))
        path = Path(recbole)
        return Imported(f"the teacher recbole {path.name!r}", read_recbole(path, Path(ids)))
    if not with_files:
        raise UsageError(problem("A teacher from elsewhere needs a source", allowed=[*files, *others]))
    return Files.of(files)


_BESIDE = {
    "recbole": ("ids",),
    "callable": ("items",),
    "implicit": ("users", "items", "log"),
    "rectools": ("dataset",),
}


@dataclass(frozen=True, slots=True)
class Imported(Elsewhere):
    """Vectors or lists with external ids."""

    source: str
    """How errors and reports call it."""
    content: Tables | Pairs

    @override
    def matched(self, *, users: IdTable, items: IdTable, seen: Csr | None = None) -> Stored:
        ours = Ours.of(users, items, seen)
        if isinstance(self.content, Tables):
            return of_tables(self.content, self.source, ours)
        return of_pairs(self.content, self.source, ours)


@dataclass(frozen=True, slots=True)
class Called(Elsewhere):
    """A callable: asked for all users' lists once, or for scores whenever they are needed."""

    call: Answer
    items: NDArray[Any] | None
    """(I',) external ids of the columns of its scores; None where it answers with lists."""

    @override
    def matched(self, *, users: IdTable, items: IdTable, seen: Csr | None = None) -> Stored:
        ours, source = Ours.of(users, items, seen), f"the teacher callable {name_of(self.call)!r}"
        names = users.external(np.arange(len(users)))
        if self.items is None:
            return of_pairs(listed(self.call, names, source), source, ours)
        match = ours.matched(source, names, self.items)
        model = Scorer(self.call, names, self.items, source)
        item = np.full(len(items), -1, np.int64)
        item[match.item[match.item >= 0]] = np.flatnonzero(match.item >= 0)
        return StoredRanker(match.coverage, model, user=match.user, item=item, digest=model.digest, seen=ours.seen)
