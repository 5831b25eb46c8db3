"""A small log with structure, and what training needs around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.data.interactions import Interactions
from recdistill.data.split import split
from recdistill.ids import IdTable


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def parts():
    """60 users, 41 items, two tastes; one valid and one test item a user."""
    rng = np.random.default_rng(3)
    user, item = [], []
    for u in range(60):
        liked = np.arange(u % 2, 41, 2)
        chosen = rng.choice(liked, 9, replace=False)
        user += [u] * 9
        item += chosen.tolist()
    log = Interactions(
        users=IdTable.from_ids(np.arange(60)),
        items=IdTable.from_ids(np.arange(41)),
        user=np.array(user, np.int32),
        item=np.array(item, np.int32),
        timestamp=None,
        weight=None,
        split=None,
    )
    return split(log, "leave-random-out", seed=1)
