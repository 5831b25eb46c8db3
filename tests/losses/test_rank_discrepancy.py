"""BD's weights, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.losses.rank_discrepancy import log_disagreement


def test_a_case_by_hand():
    # the learner ranks items 0, 1, 2 as 0, 1, 2 and the other as 2, 1, 0: over by 2, 0, -2
    mine, theirs = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[2.0, 1.0, 0.0]])
    tanh = log_disagreement(mine, theirs, steep=0.5, form="tanh").exp()
    assert tanh[0].tolist() == pytest.approx([math.tanh(1.0), 0.0, 0.0])
    exp = log_disagreement(mine, theirs, steep=0.5, form="exp").exp()
    assert exp[0].tolist() == pytest.approx([math.e, 1.0, 1 / math.e])
