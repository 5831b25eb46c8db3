"""A small rectangular log with the awkward users and items in it, and every kind of teacher over it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from recdistill import bundle
from recdistill.data.interactions import Interactions
from recdistill.ids import IdTable
from recdistill.models import MODELS
from recdistill.settings import parse
from recdistill.teachers.importers import teacher
from recdistill.teachers.joined import joined
from recdistill.teachers.live import Live
from recdistill.teachers.stored import stored

USERS, ITEMS = 24, 37
NOTHING = 5  # the user row without an interaction
UNSEEN = (0, 36)  # items nobody has


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def log():
    """24 users x 37 items, text ids, 6 items a user; user row 5 has none, item rows 0 and 36 nobody has."""
    draw = np.random.default_rng(1)
    user = np.repeat(np.setdiff1d(np.arange(USERS), [NOTHING]), 6)
    item = np.concatenate([draw.choice(np.arange(1, ITEMS - 1), 6, replace=False) for _ in range(USERS - 1)])
    return Interactions(
        users=IdTable.from_ids([f"u{n}" for n in range(USERS)]),
        items=IdTable.from_ids([f"i{n}" for n in range(ITEMS)]),
        user=user.astype(np.int32),
        item=item.astype(np.int32),
    )


@pytest.fixture(scope="session")
def built(log):
    """`built("mf", seed=3)`: a registered model with values far from its small initial ones."""

    def build(name, *, seed=3, dim=6, data=log, stirred=True):
        entry = MODELS[name]
        net = entry.build(parse(entry.settings, {"dim": dim}), data.n_users, data.n_items, seed, data)
        if stirred:
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for p in net.parameters():
                    p.add_(torch.randn(p.shape, generator=generator), alpha=0.5)
        return net.eval()

    return build


@pytest.fixture(scope="session")
def saved(log):
    """`saved(model, path)`: its bundle."""

    def save(net, path, name="mf"):
        often = np.bincount(log.item, minlength=log.n_items)
        return bundle.save(
            path,
            kind=net.kind,
            arrays=net.arrays(),
            users=log.users,
            items=log.items,
            seen=log.csr(),
            popular=np.argsort(-often, kind="stable")[:10].astype(np.int64),
            model=name,
            settings={},
            lineage={},
            metrics={},
            citations=[],
        )

    return save


@pytest.fixture(scope="session")
def teachers(log, built, saved, tmp_path_factory):
    """Every kind of teacher by name; those from files do not know user u1 and item i3."""
    folder = tmp_path_factory.mktemp("teachers")
    net = built("mf", seed=11, dim=8)
    arrays = net.arrays()
    user, item = arrays["user"], arrays["item"]
    users, items = np.setdiff1d(np.arange(USERS), [1]), np.setdiff1d(np.arange(ITEMS), [3])
    score = user[users] @ item[items].T  # (23, 36)
    depth = 30
    best = np.argsort(-score, axis=1)[:, :depth]
    table = pl.DataFrame(
        {
            "user_id": np.repeat([f"u{u}" for u in users], depth).tolist(),
            "item_id": [f"i{i}" for i in items[best].ravel()],
            "score": np.take_along_axis(score, best, 1).ravel(),
        }
    )
    table.write_parquet(folder / "scores.parquet")
    ranks = np.tile(np.arange(1, depth + 1), len(users))
    table.drop("score").with_columns(rank=pl.Series(ranks)).write_parquet(folder / "lists.parquet")
    np.savez(
        folder / "vectors.npz",
        users=np.array([f"u{u}" for u in users]),
        items=np.array([f"i{i}" for i in items]),
        user_vectors=user[users],
        item_vectors=item[items],
    )
    saved(built("neumf", seed=5), folder / "bundle", "neumf")
    common = {"users": log.users, "items": log.items, "seen": log.csr()}
    found = {f"live {name}": Live(built(name, seed=11, dim=8), seen=log.csr()) for name in MODELS}
    found["lists"] = stored(lists=folder / "lists.parquet", **common)
    found["scores"] = stored(scores=folder / "scores.parquet", **common)
    found["vectors"] = stored(vectors=folder / "vectors.npz", **common)
    found["bundle"] = stored(bundle=folder / "bundle", **common)
    names = [f"i{i}" for i in items]
    called = teacher(callable=lambda asked: user[[int(u[1:]) for u in asked]] @ item[items].T, items=names)
    found["callable"] = called.matched(**common)
    found["joined"] = joined(found["lists"], found["vectors"])
    return found
