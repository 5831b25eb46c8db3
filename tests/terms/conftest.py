"""A small world for terms: users, items, a teacher with lists and vectors, a student."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.data.csr import Csr
from recdistill.data.draws import Taken
from recdistill.models.mf import MF
from recdistill.query import Batch, Query
from recdistill.teachers.live import Live


class World:
    """20 users, 90 items, 6 training items a user; batches repeat users."""

    users, items = 20, 90

    def __init__(self) -> None:
        g = np.random.default_rng(5)
        rows = np.repeat(np.arange(self.users), 6)
        columns = np.concatenate([g.choice(self.items, 6, replace=False) for _ in range(self.users)])
        self.seen = Csr.from_pairs(rows, columns, self.users, self.items)
        self.taken = Taken.of(self.seen, torch.device("cpu"))
        self.teacher = Live(MF(self.users, self.items, dim=12, init_std=1.0, seed=1), seen=self.seen)
        self.student = MF(self.users, self.items, dim=4, init_std=0.5, seed=2)

    def batch(self, users: list[int], seed: int = 0, negatives: int = 1) -> Batch:
        """A batch of these users with any positives and negatives."""
        g = torch.Generator().manual_seed(seed)
        row = torch.tensor(users)
        items = torch.randint(0, self.items, (len(users), 1 + negatives), generator=g)
        return Batch(Query(row), items[:, 0], items[:, 1:])


@pytest.fixture
def world() -> World:
    return World()
