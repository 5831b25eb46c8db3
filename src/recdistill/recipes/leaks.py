"""Whether a figure is flattered: had a model, or who taught it, the held-out targets already?

Letters: Q queries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill import bundle as bundles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from recdistill.bundle import Bundle
    from recdistill.data.csr import Csr
    from recdistill.data.interactions import HeldOut
    from recdistill.ids import IdTable
    from recdistill.teachers.kept import StoredLists

__all__ = ["leaks", "rows_in", "trained_on"]

_MANY = 20
"""Targets that have to speak before lists are judged."""
_FIRST = 0.5
"""No recommender puts every second held-out item first; one that was trained on it does."""
_MISSED = 10.0
"""Hits that chance alone would have had; none at all says that the targets were left out, as training items are."""


def leaks(what: str, system: object, held: HeldOut) -> Iterator[str]:
    """A warning for each way in which `system` knew the targets of `held`.

    Args:
        what: how the warning calls it: "the teacher".
        system: what was trained here (its teacher is looked at too), files of a teacher, or such files matched to the
            log; of anything else nothing is known.
        held: over the rows of the log that it was trained on or matched to.
    """
    from recdistill.recipes.trained import Trained  # noqa: PLC0415 - it imports what imports this
    from recdistill.teachers.ensemble import Members  # noqa: PLC0415 - needs torch
    from recdistill.teachers.joined import Joined  # noqa: PLC0415
    from recdistill.teachers.kept import StoredLists  # noqa: PLC0415
    from recdistill.teachers.stored import Elsewhere, Files  # noqa: PLC0415
    from recdistill.teachers.trajectory import Steps  # noqa: PLC0415

    match system:
        case Trained():
            wanted = held.targets.keys[~np.isin(held.targets.keys, held.seen.keys)]
            if system.train.users == held.users and system.train.items == held.items:
                yield from _said(f"{what} was", int(np.isin(wanted, system.train.csr().keys).sum()), held)
            yield from leaks(f"the teacher of {what}", system.teacher, held)
        case Members() | Steps():
            parts = system.members if isinstance(system, Members) else system.steps
            for part in parts:
                yield from leaks(f"a part of {what}", part, held)
        case Files():
            if (path := system.paths.get("bundle")) is not None:
                yield from _said(f"{what}'s bundle was", trained_on(bundles.open(path), held, beside=held.seen), held)
            listed = {kind: path for kind, path in system.paths.items() if kind in ("lists", "scores")}
            for kind, path in listed.items():
                alone = Files({kind: path}).matched(users=held.users, items=held.items, seen=held.seen)
                yield from leaks(what, alone, held)
        case Elsewhere():
            yield from leaks(what, system.matched(users=held.users, items=held.items, seen=held.seen), held)
        case Joined():
            for each in system.teachers:
                yield from leaks(what, each, held)
        case StoredLists():
            yield from _of_lists(system, held)
        case _:
            return


def trained_on(bundle: Bundle, held: HeldOut, *, beside: Csr | None = None) -> int:
    """How many held-out targets are among what the bundle's users had in training.

    Args:
        bundle: an opened bundle.
        held: the targets, matched by external id.
        beside: (U x I) pairs of the log that do not count: those a model may know, such as the training items.
    """
    ours = np.repeat(np.arange(held.targets.n_rows), held.targets.degrees)  # (n,) one row a target
    wanted = held.targets.indices.astype(np.int64)
    if beside is not None:
        new = ~beside.contains(ours, wanted)
        ours, wanted = ours[new], wanted[new]
    user, item = rows_in(bundle.users, held.users)[ours], rows_in(bundle.items, held.items)[wanted]
    both = (user >= 0) & (item >= 0)
    known = bundle.seen if bundle.trained is None else bundle.trained
    return int(known.contains(user[both], item[both]).sum())


def rows_in(table: IdTable, of: IdTable) -> NDArray[np.int64]:
    """The table's row of every id of another table, -1 = not there."""
    return table.rows(of.external(np.arange(len(of))))


def _of_lists(lists: StoredLists, held: HeldOut) -> Iterator[str]:
    first, anywhere, by_chance, n = lists.overlap(held.targets)
    remedy = "leave what is held out, out of what the teacher is trained on"
    if n >= _MANY and first > _FIRST * n:
        yield (
            f"Warning: {lists.source} begins with the {held.name} target for {first:,} of {n:,} users, as a teacher "
            f"does that was trained on them, so figures are flattered; {remedy}."
        )
    elif by_chance >= _MISSED and anywhere == 0:
        yield (
            f"Warning: {lists.source} holds none of {n:,} {held.name} targets, where chance alone would have put "
            f"{by_chance:.0f} of them, as lists do that leave out what a teacher was trained on; {remedy}."
        )


def _said(who: str, known: int, held: HeldOut) -> Iterator[str]:
    if known:
        yield (
            f"Warning: {who} trained on {known:,} of the {len(held):,} {held.name} targets, so its figures, and those "
            "of students that learn from it, are flattered. Use the split and the seed it was trained with."
        )
