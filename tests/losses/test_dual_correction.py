"""DCD's weights, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.losses.dual_correction import errors_of_rank


def test_a_case_by_hand():
    # the student's order of the teacher's places 0, 1, 2, 3 is 2, 0, 1, 3: ranks 1, 2, 0, 3; two fall by one, one
    # rises by two
    scores, there = torch.tensor([[2.0, 1.0, 3.0, 0.0]]), torch.ones(1, 4, dtype=torch.bool)
    under, over = errors_of_rank(scores, there, steep=0.5)
    assert under[0].tolist() == pytest.approx([math.tanh(0.5), math.tanh(0.5), 0, 0])
    assert over[0].tolist() == pytest.approx([0, 0, math.tanh(1.0), 0])


def test_the_teachers_order_has_no_error_and_equal_scores_are_in_it():
    for scores in (torch.tensor([[3.0, 2.0, 1.0]]), torch.zeros(1, 3)):
        under, over = errors_of_rank(scores, torch.ones(1, 3, dtype=torch.bool), steep=1.0)
        assert under.sum() == over.sum() == 0


def test_places_that_hold_nothing_have_no_error():
    scores, there = torch.tensor([[0.0, 1.0, 9.0]]), torch.tensor([[True, True, False]])
    under, over = errors_of_rank(scores, there, steep=1.0)
    assert under[0].tolist() == pytest.approx([math.tanh(1), 0, 0])
    assert over[0].tolist() == pytest.approx([0, math.tanh(1), 0])


def test_a_constant_changes_nothing():
    g = torch.Generator().manual_seed(1)
    scores, there = torch.randn(4, 6, generator=g), torch.ones(4, 6, dtype=torch.bool)
    for one, other in zip(
        errors_of_rank(scores, there, steep=0.2), errors_of_rank(scores + 7, there, steep=0.2), strict=True
    ):
        torch.testing.assert_close(one, other)
