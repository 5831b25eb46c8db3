"""HetComp's losses: golden values, gradients, invariances."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.losses.consensus import above_the_rest, distance_of_lists, in_order
from recdistill.losses.relaxed_ranking import relaxed_ranking


def test_above_the_rest_by_hand():
    # Z = 3: scores 0 and log 3: log(1 + 3) + log(1 + 1) = 1.386294 + .693147
    value = above_the_rest(torch.tensor([[0.0, math.log(3)]]), torch.tensor([[math.log(3)]]))
    assert value.item() == pytest.approx(1.386294 + 0.693147, abs=1e-5)
    gone = above_the_rest(torch.tensor([[0.0, -torch.inf]]), torch.tensor([[0.0]]))
    assert gone.item() == pytest.approx(math.log(2), abs=1e-6)


def test_the_order_is_that_of_the_first_half_and_of_the_first_tenth():
    # K = 4: halves 2 and 1 (a tenth, at least one); all zero, Z = 1: half: (1 + 1 + 1 + 2) / 5 and 4 below:
    # log(2 + 1 + 2) + log(1 + 1 + 2) and log(1 + 1 + 3), halved
    value = in_order(torch.zeros(1, 4), torch.zeros(1, 1))
    assert value.item() == pytest.approx((math.log(5) + math.log(4) + math.log(5)) / 2, abs=1e-5)
    g = torch.Generator().manual_seed(0)
    top, rest = torch.randn(3, 20, generator=g), torch.randn(3, 1, generator=g)
    want = relaxed_ranking(top[:, :10], torch.cat([rest, top[:, 10:]], 1))
    want = (want + relaxed_ranking(top[:, :2], torch.cat([rest, top[:, 2:]], 1))) / 2
    torch.testing.assert_close(in_order(top, rest), want)


@pytest.mark.parametrize("loss", [above_the_rest, in_order])
def test_gradients_pass_a_finite_difference_check_and_a_constant_changes_nothing(loss):
    g = torch.Generator().manual_seed(0)
    top, rest = (torch.randn(2, n, generator=g, dtype=torch.float64).requires_grad_() for n in (6, 1))
    assert torch.autograd.gradcheck(loss, (top, rest))
    torch.testing.assert_close(loss(top + 11, rest + 11), loss(top, rest))


def test_distances_by_hand():
    # gains (2^1 - 1) / 1 = 1 and (2^(e^-.1) - 1) / log2(3) = .551420; the second item is in both lists
    gain = (2 ** math.exp(-0.1) - 1) / math.log2(3)
    found = distance_of_lists(torch.tensor([[4, 7], [4, 7], [3, -1]]), torch.tensor([[7, 5], [7, 4], [1, -1]]))
    assert found.tolist() == pytest.approx([1 - gain / (1 + gain), 0.0, 1.0], abs=1e-6)
