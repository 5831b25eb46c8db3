"""Who is cold, which items are the tail, and what is left to find in a segment."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.data.csr import Csr
from recdistill.data.split import split
from recdistill.data.synthetic import planted
from recdistill.evaluation.segments import item_segments, targets_within, user_segments


def log(degrees, items=10):
    rows = np.repeat(np.arange(len(degrees)), degrees)
    columns = np.concatenate([np.arange(n) for n in degrees])
    return Csr.from_pairs(rows, columns, len(degrees), items)


def test_the_coldest_quarter_of_the_measured_users_is_cold_ties_included():
    train = log([1, 2, 3, 4, 5, 6, 7, 8, 9])
    cold, warm = user_segments(train, np.arange(1, 9))  # 2 .. 9: the quarter's last has 3
    assert (cold.name, cold.about, warm.about) == ("cold users", "at most 3 training interactions", "more than 3")
    assert np.flatnonzero(cold.member).tolist() == [0, 1, 2]
    assert not (cold.member & warm.member).any()
    tied, _ = user_segments(log([3, 3, 3, 3, 9]), np.arange(5))
    assert tied.member.tolist() == [True, True, True, True, False]


def test_users_who_all_have_as_much_are_not_divided():
    assert user_segments(log([4, 4, 4]), np.arange(3)) == ()
    assert user_segments(log([4, 4, 4]), np.arange(0)) == ()


def test_the_head_is_the_fewest_items_that_make_up_half():
    # item 0 is had by 5, item 1 by 3, items 2 and 3 by 1: 10 interactions, half of them item 0's
    train = Csr.from_pairs([0, 1, 2, 3, 4, 0, 1, 2, 0, 1], [0, 0, 0, 0, 0, 1, 1, 1, 2, 3], 5, 5)
    head, tail = item_segments(train)
    assert head.member.tolist() == [True, False, False, False, False]
    assert head.about == "the 1 most popular of 5 items, 50 % of the interactions"
    assert tail.about == "the other 4"
    assert (head.member ^ tail.member).all()


def test_a_catalogue_of_one_item_has_no_tail():
    assert item_segments(Csr.from_pairs([0, 1], [0, 0], 2, 1)) == ()
    assert item_segments(Csr.empty(2, 3)) == ()


def test_targets_of_a_segment_are_the_targets_that_are_in_it():
    parts = split(planted(users=40, items=30, interactions=500, dim=4, seed=1), "ratio")
    segments = item_segments(parts.train.csr())
    halves = [targets_within(parts.test, segment) for segment in segments]
    assert sum(map(len, halves)) == len(parts.test) > 0
    for half, segment in zip(halves, segments, strict=True):
        assert segment.member[half.targets.indices].all()
        assert half.seen is parts.test.seen
        assert half.name == "test"
    with pytest.raises(IndexError):
        segments[2]
