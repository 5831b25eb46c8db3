"""Successive halving: how trials are shared, and who goes on."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.errors import UsageError
from recdistill.recipes.halving import Rung, better_half, rungs


@pytest.mark.parametrize(
    ("methods", "trials", "expected"),
    [
        (1, 8, [(1, 8)]),
        (2, 5, [(2, 2)]),  # one round; the fifth trial cannot be shared
        (4, 16, [(4, 2), (2, 6)]),  # 8 for each round
        (5, 24, [(5, 1), (3, 4), (2, 9)]),  # 24 // 3 // 5 = 1 each; 19 left, 19 // 2 // 3 = 3; 10 left, 5 each
        (8, 8, [(8, 1), (4, 1), (2, 1)]),  # nothing is left after the first round
    ],
)
def test_every_round_costs_about_the_same_and_halves_who_is_left(methods, trials, expected):
    assert rungs(methods, trials) == [Rung(*each) for each in expected]


@given(st.integers(1, 40), st.integers(0, 300))
def test_no_more_trials_are_spent_than_were_given_and_everybody_has_one(methods, more):
    found = rungs(methods, methods + more)
    before = [0, *(rung.each for rung in found[:-1])]
    spent = sum(rung.methods * (rung.each - had) for rung, had in zip(found, before, strict=True))
    assert spent <= methods + more
    assert found[0].methods == methods
    assert found[0].each >= 1
    assert found[-1].methods <= 2
    for at, (one, other) in enumerate(pairwise(found), 1):
        assert other.methods == math.ceil(methods / 2**at)
        assert other.each >= one.each


def test_fewer_trials_than_methods_are_refused():
    with pytest.raises(UsageError, match=r"5 methods need at least as many trials; got 4\. Give --trials 5 or more"):
        rungs(5, 4)
    with pytest.raises(UsageError, match="There is no method to tune"):
        rungs(0, 4)


def test_the_better_half_is_in_order_and_who_failed_is_last():
    worth = {"a": 0.1, "b": None, "c": 0.3, "d": 0.3}
    assert better_half(worth, 2) == ["c", "d"]
    assert better_half(worth, 4) == ["c", "d", "a", "b"]
