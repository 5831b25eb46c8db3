"""Batches: an epoch is the whole log once, in an order and with negatives that depend on (seed, epoch) alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill import rng
from recdistill.data.batches import InteractionBatches
from recdistill.data.interactions import Interactions
from recdistill.errors import TrainingError, UsageError
from recdistill.ids import IdTable

CPU = torch.device("cpu")


def log(n: int = 103, users: int = 20, items: int = 30) -> Interactions:
    pairs = np.random.default_rng(0).permutation(users * items)[:n]
    return Interactions(
        users=IdTable.from_ids(np.arange(users)),
        items=IdTable.from_ids(np.arange(items)),
        user=(pairs // items).astype(np.int32),
        item=(pairs % items).astype(np.int32),
        timestamp=None,
        weight=None,
        split=None,
    )


def batches(size: int = 10, **changes) -> InteractionBatches:
    return InteractionBatches(log(), **({"size": size, "seed": 4, "device": CPU} | changes))


def flat(parts) -> torch.Tensor:
    """(n, 2 + N) user, item, negatives of all batches."""
    return torch.cat([torch.cat([b.query.row[:, None], b.positive[:, None], b.negatives], 1) for b in parts])


@pytest.mark.parametrize("size", [1, 10, 103, 1000])
def test_batches_concatenate_to_the_whole_and_the_last_one_is_kept(size):
    train, made = log(), list(batches(size).epoch(0))
    assert len(made) == len(batches(size)) == -(-103 // size)
    assert [len(b.positive) for b in made] == [size] * (103 // size) + ([103 % size] if 103 % size else [])
    pairs = flat(made)[:, :2].tolist()
    assert sorted(pairs) == sorted(np.stack([train.user, train.item], 1).tolist())


def test_the_size_of_batches_changes_nothing_in_what_an_epoch_holds():
    assert torch.equal(flat(batches(10).epoch(3)), flat(batches(64).epoch(3)))


def test_a_seed_and_an_epoch_give_one_epoch():
    assert torch.equal(flat(batches().epoch(2)), flat(batches().epoch(2)))
    assert not torch.equal(flat(batches().epoch(2)), flat(batches().epoch(3)))
    assert not torch.equal(flat(batches().epoch(2)), flat(batches(seed=5).epoch(2)))


@pytest.mark.parametrize("start", [0, 1, 7, 10, 11])
def test_starting_later_goes_on_where_a_stopped_epoch_was(start):
    whole, rest = list(batches().epoch(1)), list(batches().epoch(1, start=start))
    assert len(rest) == len(whole) - start
    if rest:
        assert torch.equal(flat(rest), flat(whole[start:]))


def test_the_order_is_the_permutation_of_the_house():
    train = log()
    order = rng.permutation(rng.key(4, "order", 2), len(train))
    assert flat(batches().epoch(2))[:, 0].tolist() == train.user[order].tolist()


@pytest.mark.parametrize("n", [0, 1, 5])
def test_negatives_are_never_in_train(n):
    drawn = flat(batches(negatives=n).epoch(0))
    assert drawn.shape == (103, 2 + n)
    assert not log().csr().contains(drawn[:, :1].numpy(), drawn[:, 2:].numpy()).any()


def test_negatives_reach_every_free_item():
    users = torch.cat([flat(batches(negatives=8).epoch(epoch)) for epoch in range(20)])
    free = set(range(30)) - set(log().csr().row(3).tolist())
    assert set(users[users[:, 0] == 3][:, 2:].flatten().tolist()) == free


def test_impossible_settings_are_refused():
    with pytest.raises(UsageError, match=r"The batch size must be at least 1; got 0\."):
        batches(0)
    with pytest.raises(UsageError, match=r"The number of negatives must be at least 0; got -1\."):
        batches(negatives=-1)
    with pytest.raises(TrainingError, match=r"There is no interaction to learn from\. Check the split"):
        InteractionBatches(log(0), size=1, seed=0, device=CPU)
