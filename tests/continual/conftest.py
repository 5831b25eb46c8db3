"""A small stream: 40 users and 80 items by the end, three blocks, newcomers in each, one user away in the middle."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.continual.settings import settings_of
from recdistill.data.blocks import blocks
from recdistill.data.interactions import Interactions
from recdistill.ids import IdTable

TINY = {"epochs": 3, "batch": 32, "every": 3}
SETTINGS = {
    "student": {"dim": 4},
    "teachers": [{"name": "mf", "dim": 5}],
    "base": TINY,
    "plain": TINY,
    "distil": {"training": {**TINY, "lr": 0.05}, "near": 5, "item_batch": 8},
    "update": {"training": {**TINY, "lr": 0.05}, "replay": {"depth": 6, "redraw": 2}},
    "teach": {"training": TINY, "replay": {"depth": 6, "redraw": 2}},
}


def made(seed=0):
    chance = np.random.default_rng(seed)
    user, item, block, split = [], [], [], []
    for k, (n_users, n_items) in enumerate(((24, 60), (32, 70), (40, 80))):
        for u in range(n_users):
            if k == 1 and u == 3:  # away
                continue
            near = (np.arange(n_items) % 4 == u % 4) * 5.0 + 1  # four tastes
            mine = chance.choice(n_items, size=9, replace=False, p=near / near.sum())
            parts = chance.permutation([0] * 6 + [1, 2, 2])
            user += [u] * 9
            item += mine.tolist()
            block += [k] * 9
            split += parts.tolist()
    log = Interactions(
        IdTable.from_ids(np.arange(40)),
        IdTable.from_ids(np.arange(80)),
        np.array(user, np.int32),
        np.array(item, np.int32),
        split=np.array(split, np.int8),
    )
    return blocks(log, np.array(block), users=(24, 32, 40), items=(60, 70, 80))


@pytest.fixture
def stream():
    return made()


@pytest.fixture
def settings():
    return settings_of(settings=SETTINGS)
