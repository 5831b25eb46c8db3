"""LA, RA and H along a stream."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.errors import UsageError
from recdistill.evaluation.continual import continual

A = np.array([[0.10, np.nan, np.nan], [0.06, 0.20, np.nan], [0.02, 0.08, 0.30]])


def test_figures_worked_by_hand():
    # after block 2: LA = (.1 + .2 + .3) / 3 = .2, RA = (.02 + .08 + .3) / 3 = .4 / 3, H = 2 LA RA / (LA + RA) = .16
    after = continual(A)
    assert (after[0].la, after[0].ra, after[0].h) == pytest.approx((0.1, 0.1, 0.1))
    assert after[1].la == pytest.approx(0.15)
    assert after[1].ra == pytest.approx(0.13)
    assert after[2].la == pytest.approx(0.2)
    assert after[2].ra == pytest.approx(0.4 / 3)
    assert after[2].h == pytest.approx(0.16)


def test_the_base_block_can_be_left_out():
    # after block 2: LA = .25, RA = (.08 + .3) / 2 = .19
    after = continual(A, base=False)
    assert np.isnan(after[0].h)
    assert (after[2].la, after[2].ra) == (pytest.approx(0.25), pytest.approx(0.19))


def test_values_are_rounded_first_as_the_official_code_does():
    a = np.array([[0.12344]])
    assert continual(a, decimals=4)[0].la == 0.1234


def test_nothing_learned_is_0_and_a_hole_is_an_error():
    assert continual(np.zeros((2, 2)))[1].h == 0
    with pytest.raises(UsageError, match="There is no figure of block 1 after block 2"):
        continual(np.where(np.arange(9).reshape(3, 3) == 7, np.nan, A))
    with pytest.raises(UsageError, match="come as a square"):
        continual(np.zeros((2, 3)))
