"""Rows are names: users and items numbered otherwise have the same loss, by every method, and the same gradients.

Draws are functions of rows, so those of a renumbered run are asked by the old rows, and what they draw gets its new
number. One permutation does for both tables, since items' rows are among the users': so a draw need not say whose row
it is of. Every item is had by another number of users, because groups of equal popularity are cut by rows.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill import rng
from recdistill.clock import Clock
from recdistill.data.batches import InteractionBatches
from recdistill.data.interactions import Interactions
from recdistill.ids import IdTable
from recdistill.methods import METHODS, Setting
from recdistill.models import MODELS
from recdistill.query import Batch, Query
from recdistill.runtime import Runtime
from recdistill.settings import parse
from recdistill.teachers.live import Live
from recdistill.terms.base import FromInteractions

from .test_methods import SEQUENTIAL, small

USERS, ITEMS = 61, 31
SETTINGS = {
    "hetcomp": {"positives": ITEMS},  # else it takes one of each third of what a user has, in the order of rows
    "freqd": {"neighbours": USERS},  # else neighbours of equal count are cut by rows
}
HOW = {method: {**small(method), **SETTINGS.get(method, {})} for method in METHODS}


@pytest.fixture(scope="module")
def order():
    """(U,) the new row of each old one; the first I stay among themselves, and none stays where it is."""
    draw = np.random.default_rng(2)

    def cycle(rows):
        turned = draw.permutation(rows)
        found = np.empty(USERS, np.int64)
        found[turned] = np.roll(turned, 1)
        return found[rows]

    return torch.from_numpy(np.concatenate([cycle(np.arange(ITEMS)), cycle(np.arange(ITEMS, USERS))]))


@pytest.fixture(scope="module")
def pairs():
    """Users and items of a log in which item i is had by i + 2 users."""
    draw = np.random.default_rng(5)
    item = np.repeat(np.arange(ITEMS), np.arange(ITEMS) + 2)
    return np.concatenate([draw.choice(USERS, i + 2, replace=False) for i in range(ITEMS)]), item


def logged(user, item):
    ids = (IdTable.from_ids([f"{side}{n}" for n in range(size)]) for side, size in (("u", USERS), ("i", ITEMS)))
    users, items = ids
    return Interactions(users=users, items=items, user=user.astype(np.int32), item=item.astype(np.int32))


def model(name, log, seed, tables=None):
    """A model in float64, its parameters drawn; its tables renumbered where `tables` says how."""
    entry = MODELS[name]
    net = entry.build(parse(entry.settings, {"dim": 6}), USERS, ITEMS, seed, log).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in net.parameters():
            each.add_(torch.randn(each.shape, generator=generator, dtype=each.dtype), alpha=0.5)
            if tables is not None and each.shape[0] in (USERS, ITEMS):
                each[tables[: each.shape[0]]] = each.clone()
    return net


def losses(method, student, teacher, log, batch):
    """Of two epochs: every weighted term's number, and the gradient of their sum by the student's parameters."""
    batches = InteractionBatches(log, size=40, seed=5, device=torch.device("cpu"))
    setting = Setting(
        student=student,
        batches=batches,
        base=FromInteractions(),
        taken=batches.taken,
        n_users=USERS,
        seed=5,
        teacher=teacher,
    )
    entry, runtime = METHODS[method], Runtime(torch.device("cpu"))
    found, gradients = {}, []
    for each in entry.build(parse(entry.settings, HOW[method]), setting):
        each.objective.double()
        for clock in (Clock(1, 0), Clock(2, 1)):
            learner = student if each.learner is None else each.learner
            view = None if each.teacher is None else each.teacher.view(batch.query)
            total, parts = each.objective(learner.view(batch.query), view, batch, clock, runtime)
            found |= {(each.name, clock.epoch, name): part for name, part in parts.items()}
            gradients.append(torch.autograd.grad(total, list(learner.parameters())))
    return found, gradients


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (method, name)
        for method in METHODS
        for name in (["gru4rec", "sasrec"] if method in SEQUENTIAL else ["mf", "lightgcn", "neumf"])
    ],
)
def test_renumbered_users_and_items_have_the_same_loss_and_gradients(method, name, order, pairs, monkeypatch):
    user, item = pairs
    taught_by = "gru4rec" if method in SEQUENTIAL else "mf"
    place = torch.from_numpy(np.random.default_rng(3).choice(len(user), 40, replace=False))
    drawn = torch.from_numpy(np.random.default_rng(4).integers(0, ITEMS, (40, 1)))

    def run(turn, log):
        tables = order if turn is order else None
        student = model(name, log, 3, tables).train(method not in SEQUENTIAL)  # without dropout
        teacher = Live(model(taught_by, log, 11, tables), seen=log.csr())
        users = turn[torch.from_numpy(user)[place]]
        query = Query(users, history=student.history_of(users) if method in SEQUENTIAL else None)
        batch = Batch(query, turn[torch.from_numpy(item)[place]], turn[drawn])
        return losses(method, student, teacher, log, batch)

    same = torch.arange(USERS)
    before, slopes = run(same, logged(user, item))
    back, bits, integers = order.argsort(), rng.bits, rng.integers

    def renumbered(key, rows, k, high):
        words = integers(key, rows, k, high)
        return order[words] if high in {USERS, ITEMS} else words

    monkeypatch.setattr(rng, "bits", lambda key, rows, k: bits(key, back[rows], k))
    monkeypatch.setattr(rng, "integers", renumbered)
    forth = order.numpy()
    after, turned = run(order, logged(forth[user], forth[item]))
    assert set(before) == set(after)
    for term, value in before.items():
        torch.testing.assert_close(after[term], value, rtol=1e-9, atol=1e-9, msg=lambda text, t=term: f"{t}: {text}")
    for one, other in zip(slopes, turned, strict=True):
        for a, b in zip(one, other, strict=True):
            again = b[order[: len(b)]] if b.shape[0] in (USERS, ITEMS) else b
            torch.testing.assert_close(again, a, rtol=1e-7, atol=1e-9)
