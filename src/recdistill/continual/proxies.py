"""Stability and plasticity: two memories of the students that were distilled, each a moving average.

    SP_k[id] = l_S SP_{k-1}[id] + (1 - l_S) S_k[id]   for ids that SP_{k-1} has;   SP_k[new id] = S_k[new id]

and PP with l_P. Lee et al., CCD, KDD 2024 (official code averages the raw tables, mode "weights"). Students that are
distilled from scratch have spaces turned against each other, so that averaging tables is not averaging opinions:
"aligned" turns the new student into the proxy's space first (orthogonal Procrustes), "scores" averages scores, by
vectors set side by side, which are compressed to a fixed width by a truncated SVD of their product.

Updated once in a teacher cycle, after stage 1; key it by the cycle's number, for an average applied twice is silent.

Letters: U users, I items, d dims, w width of side-by-side vectors.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from recdistill.continual.settings import ModelSpec
from recdistill.continual.snapshot import Snapshot
from recdistill.data.csr import Csr

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.continual.settings import Proxies

__all__ = ["averaged", "compressed", "procrustes", "remembered", "served"]


def averaged(before: Snapshot | None, student: Snapshot, keep: float, how: Proxies) -> Snapshot:
    """A proxy after another cycle.

    Args:
        before: the proxy of the cycle before; None begins with the student.
        student: as it was distilled, with at least the rows of `before`.
        keep: l; at 1 every vector that `before` has stays as it is, at 0 the proxy is the student.
        how: mode and width.

    Returns:
        Modes "weights" and "aligned": a model of the student's kind over the student's interactions. Mode "scores": a
        matrix factorisation of what is served.
    """
    if before is None or keep == 0:
        return student if how.mode != "scores" else served(student)
    if how.mode == "scores":
        return _side_by_side(before, served(student), keep, how.width)
    new = student
    if how.mode == "aligned":
        new = replace(student, weights=_turned(student, before))
    weights: dict[str, NDArray[np.float32]] = {}
    for name, table in new.weights.items():
        old = np.asarray(before.weights[name])
        weights[name] = np.array(table)
        weights[name][: len(old)] = old if keep == 1 else keep * old + (1 - keep) * table[: len(old)]
    return replace(new, weights=weights)


def served(snapshot: Snapshot) -> Snapshot:
    """What a model serves, as plain vectors: any model as a matrix factorisation."""
    if snapshot.spec.name == "mf":
        return snapshot
    arrays = snapshot.model().arrays()
    spec = ModelSpec(name="mf", dim=arrays["user"].shape[1])
    empty = Csr.empty(snapshot.n_users, snapshot.n_items)
    copies = {name: value.copy() for name, value in arrays.items()}
    return Snapshot(spec, copies, snapshot.met_users, snapshot.met_items, empty)


def remembered(proxy: Snapshot | None) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """(U, d), (I, d) the vectors a source is asked by."""
    if proxy is None:
        return None
    arrays = proxy.model().arrays()
    return arrays["user"], arrays["item"]


def procrustes(moving: NDArray[np.float32], fixed: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, d), (n, d) -> (d, d) the orthogonal Q with the least `|moving Q - fixed|`."""
    u, _, v = np.linalg.svd(moving.T.astype(np.float64) @ fixed)
    return (u @ v).astype(np.float32)


def compressed(
    user: NDArray[np.float32], item: NDArray[np.float32], width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(U, w), (I, w) -> (U, width), (I, width) with the nearest product of that rank; as they are if narrow."""
    if user.shape[1] <= width:
        return user, item
    q, r = np.linalg.qr(user.astype(np.float64))
    p, s = np.linalg.qr(item.astype(np.float64))
    u, values, v = np.linalg.svd(r @ s.T)  # (w, w)
    root = np.sqrt(values[:width])  # fewer where there are fewer rows
    return (q @ (u[:, : len(root)] * root)).astype(np.float32), (p @ (v[: len(root)].T * root)).astype(np.float32)


def _turned(student: Snapshot, before: Snapshot) -> dict[str, NDArray[np.float32]]:
    names = ("user", "item")
    both = [
        np.concatenate([np.asarray(each.weights[name])[: len(before.weights[name])] for name in names])
        for each in (student, before)
    ]
    turn = procrustes(*both)
    return {name: np.asarray(student.weights[name]) @ turn for name in names}


def _side_by_side(before: Snapshot, student: Snapshot, keep: float, width: int) -> Snapshot:
    """`keep` times the old scores and the rest times the new ones; where the old has no row, the new ones whole.

    `<new> + [both ends old] keep (<old> - <new>)`, as one product of vectors of width d + d + w.
    """
    if keep == 1 and (before.n_users, before.n_items) == (student.n_users, student.n_items):
        return replace(before, met_users=student.met_users, met_items=student.met_items)
    parts: dict[str, NDArray[np.float32]] = {}
    for name, scale in (("user", np.float32(keep)), ("item", np.float32(-1))):
        new, old = np.asarray(student.weights[name]), np.asarray(before.weights[name])
        past = np.zeros((len(new), new.shape[1] + old.shape[1]), np.float32)
        past[: len(old), : new.shape[1]] = new[: len(old)]
        past[: len(old), new.shape[1] :] = old if name == "user" else -old
        parts[name] = np.concatenate([new, scale * past], 1)
    user, item = compressed(parts["user"], parts["item"], width)
    spec = ModelSpec(name="mf", dim=user.shape[1])
    empty = Csr.empty(student.n_users, student.n_items)
    return Snapshot(spec, {"user": user, "item": item}, student.met_users, student.met_items, empty)
