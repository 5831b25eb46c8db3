"""Batch normalisation that leaves padding out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recdistill.search.norm import PositionNorm


def test_over_all_positions_it_is_the_official_batch_norm():
    g = torch.Generator().manual_seed(0)
    ours, theirs = PositionNorm(3, over="all"), nn.BatchNorm1d(3)
    for _ in range(3):
        x = torch.randn(4, 3, 5, generator=g) * 2 + 1
        torch.testing.assert_close(ours(x, torch.rand(4, 1, 5) > 0.5), theirs(x))
    torch.testing.assert_close((ours.mean, ours.var), (theirs.running_mean, theirs.running_var))
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x, torch.ones(4, 1, 5, dtype=torch.bool)), theirs(x))


def test_padding_does_not_enter_the_statistics():
    # real values 1, 3, 5: mean 3, variance 8/3; unbiased 4, of which a tenth is learned: 0.9 * 1 + 0.1 * 4
    norm = PositionNorm(1, eps=0)
    x = torch.tensor([[[99.0, 1, 3]], [[-99.0, -99.0, 5]]])
    real = torch.tensor([[[False, True, True]], [[False, False, True]]])
    y = norm(x, real)
    assert y[0, 0, 1:].tolist() == pytest.approx([-2 / (8 / 3) ** 0.5, 0])
    assert norm.mean.item() == pytest.approx(0.3)
    assert norm.var.item() == pytest.approx(1.3)


def test_what_stands_at_padding_changes_nothing_real():
    g = torch.Generator().manual_seed(1)
    x, real = torch.randn(4, 3, 6, generator=g), torch.rand(4, 1, 6, generator=g) > 0.4
    other = torch.where(real, x, torch.full_like(x, 1e3))
    one, two = PositionNorm(3), PositionNorm(3)
    torch.testing.assert_close(one(x, real) * real, two(other, real) * real)
    torch.testing.assert_close(one.var, two.var)


def test_a_mask_that_is_all_true_is_no_mask():
    x = torch.randn(4, 3, 6)
    everywhere = torch.ones(4, 1, 6, dtype=torch.bool)
    torch.testing.assert_close(PositionNorm(3)(x, everywhere), PositionNorm(3, over="all")(x, everywhere))


def test_a_batch_of_padding_alone_leaves_the_statistics_and_is_finite():
    norm = PositionNorm(3)
    y = norm(torch.randn(2, 3, 4), torch.zeros(2, 1, 4, dtype=torch.bool))
    assert torch.isfinite(y).all()
    assert (norm.mean == 0).all()
    assert (norm.var == 1).all()
    assert norm.seen == 0


def test_without_momentum_batches_are_averaged():
    norm = PositionNorm(1)
    norm.momentum = None
    real = torch.ones(1, 1, 2, dtype=torch.bool)
    for value in (1.0, 2.0, 6.0):
        norm(torch.tensor([[[value, value]]]), real)
    assert norm.mean.item() == pytest.approx(3.0)  # (1 + 2 + 6) / 3
    norm.forgotten()
    assert norm.mean.item() == 0


def test_an_operator_that_was_not_sampled_does_not_learn():
    norm = PositionNorm(2)
    norm(torch.randn(2, 2, 3), torch.ones(2, 1, 3, dtype=torch.bool), track=False)
    assert norm.seen == 0
    assert (norm.mean == 0).all()
