"""Negatives leave alone what is believed, where that leaves anything."""

from __future__ import annotations

import numpy as np
import torch

from recdistill.continual.batches import avoiding
from recdistill.continual.settings import Training
from recdistill.data.csr import Csr
from recdistill.data.interactions import Interactions
from recdistill.ids import IdTable
from recdistill.runtime import CPU

ITEMS = 10
OWN = {0: [0, 1, 2, 3, 4, 5], 1: [0, 1], 2: list(range(10))}


def log():
    pairs = [(user, item) for user, items in OWN.items() for item in items]
    user, item = np.array(pairs, np.int32).T
    return Interactions(IdTable.from_ids(np.arange(3)), IdTable.from_ids(np.arange(ITEMS)), user, item)


def drawn(avoid):
    """What each user is compared with in twenty epochs."""
    batches = avoiding(log(), Training(batch=4, negatives=5), avoid=avoid, seed=1, device=CPU.device)
    found = {}
    for epoch in range(20):
        for batch in batches.epoch(epoch):
            for user, items in zip(batch.query.row.tolist(), batch.negatives.tolist(), strict=True):
                found.setdefault(user, set()).update(items)
    return found


def test_a_user_whom_nothing_is_left_is_compared_with_what_is_believed():
    avoid = Csr.from_pairs([0, 0, 0, 0, 1, 1], [6, 7, 8, 9, 6, 7], 3, ITEMS)
    assert drawn(avoid) == {0: {6, 7, 8, 9}, 1: {2, 3, 4, 5, 8, 9}}


def test_nobody_else_is_compared_with_what_is_believed():
    avoid = Csr.from_pairs([0, 0, 0, 1, 1], [6, 7, 8, 6, 7], 3, ITEMS)
    assert drawn(avoid) == {0: {9}, 1: {2, 3, 4, 5, 8, 9}}
    batches = avoiding(log(), Training(batch=4), avoid=avoid, seed=1, device=CPU.device)
    torch.testing.assert_close(batches.taken.keys, torch.from_numpy(log().csr().union(avoid).keys))
