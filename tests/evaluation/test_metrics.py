"""Metrics: golden values worked by hand, a naive twin, and the properties every ranking metric has."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.errors import UnknownName, UsageError
from recdistill.evaluation.metrics import METRICS, Metric, from_rank, parse, per_user

# Three users, lists of four, cut off at 3. Hits by place, targets n:
#   a: hit miss hit miss, n = 2     b: miss hit miss hit, n = 5     c: miss miss miss hit, n = 1
HITS = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 0, 1]], bool)
TARGETS = np.array([2, 5, 1])
LOG3 = math.log2(3)
GOLDEN = {
    "recall": [2 / 2, 1 / 5, 0],
    "recall_min": [2 / 2, 1 / 3, 0],  # min(5, 3) = 3
    "precision": [2 / 3, 1 / 3, 0],
    "hr": [1, 1, 0],
    "mrr": [1, 1 / 2, 0],
    # a: (1/1 at place 1 + 2/3 at place 3) / min(2, 3) = (5/3) / 2; b: (1/2 at place 2) / min(5, 3)
    "map": [5 / 6, 1 / 6, 0],
    # discounts 1, 1/log2 3, 1/log2 4 = 1/2.  a: (1 + 1/2) / (1 + 1/log2 3); b: (1/log2 3) / (1 + 1/log2 3 + 1/2)
    "ndcg": [1.5 / (1 + 1 / LOG3), (1 / LOG3) / (1.5 + 1 / LOG3), 0],
}


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_values_worked_by_hand(name):
    assert per_user(Metric(name, 3), HITS, TARGETS) == pytest.approx(GOLDEN[name], abs=1e-15)


def test_every_metric_has_a_golden_value():
    assert set(METRICS) == set(GOLDEN)


def naive(name, hits, n, k):
    hits = [bool(h) for h in hits[:k]]
    places = [r for r, h in enumerate(hits, 1) if h]
    gain = sum(1 / math.log2(r + 1) for r in places)
    ideal = sum(1 / math.log2(r + 1) for r in range(1, min(n, k) + 1))
    return {
        "recall": len(places) / n,
        "recall_min": len(places) / min(n, k),
        "precision": len(places) / k,
        "hr": float(bool(places)),
        "mrr": 1 / places[0] if places else 0.0,
        "map": sum(sum(hits[:r]) / r for r in places) / min(n, k),
        "ndcg": gain / ideal,
    }[name]


@st.composite
def batches(draw):
    users, places = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    hits = np.array(
        draw(st.lists(st.lists(st.booleans(), min_size=places, max_size=places), min_size=users, max_size=users))
    )
    more = np.array(draw(st.lists(st.integers(0, 5), min_size=users, max_size=users)))
    return hits, np.maximum(hits.sum(axis=1) + more, 1), draw(st.integers(1, 15))


@given(batches())
def test_equal_to_the_naive_twin_within_bounds_and_user_by_user(batch):
    hits, targets, k = batch
    order = np.arange(len(hits))[::-1]
    for name in METRICS:
        found = per_user(Metric(name, k), hits, targets)
        assert found == pytest.approx([naive(name, h, n, k) for h, n in zip(hits, targets.tolist(), strict=True)])
        assert ((found >= 0) & (found <= 1 + 1e-12)).all()
        assert (per_user(Metric(name, k), hits[order], targets[order]) == found[order]).all()


@given(st.integers(1, 20), st.integers(1, 20))
def test_a_perfect_list_is_1(n, k):
    hits = np.arange(25)[None, :] < n
    for name in set(METRICS) - {"recall", "precision"}:
        assert per_user(Metric(name, k), hits, np.array([n])) == pytest.approx([1])
    assert per_user(Metric("recall", k), hits, np.array([n])) == pytest.approx([min(n, k) / n])
    assert per_user(Metric("precision", k), hits, np.array([n])) == pytest.approx([min(n, k) / k])


@given(st.integers(1, 30), st.integers(1, 25))
def test_a_single_target_has_the_same_value_from_its_rank_as_from_its_list(rank, k):
    hits = np.arange(1, 31)[None, :] == rank
    for name in METRICS:
        metric = Metric(name, k)
        assert from_rank(metric, np.array([float(rank)])) == pytest.approx(per_user(metric, hits, np.array([1])))


def test_a_tie_is_discounted_at_its_middle_and_no_answer_is_0():
    rank = np.array([2.5, 10.5, np.inf, np.nan, 10.0])  # 2.5: shares places 2 and 3 with one other
    assert from_rank(Metric("ndcg", 10), rank) == pytest.approx([1 / math.log2(3.5), 0, 0, 0, 1 / math.log2(11)])
    assert from_rank(Metric("mrr", 10), rank) == pytest.approx([0.4, 0, 0, 0, 0.1])
    assert from_rank(Metric("hr", 10), rank).tolist() == [1, 0, 0, 0, 1]
    assert from_rank(Metric("precision", 10), rank).tolist() == [0.1, 0, 0, 0, 0.1]


def test_a_cut_off_beyond_the_list_keeps_its_denominator():
    assert per_user(Metric("precision", 8), HITS, TARGETS) == pytest.approx([2 / 8, 2 / 8, 1 / 8])
    assert per_user(Metric("ndcg", 8), np.zeros((2, 0), bool), np.array([1, 9])).tolist() == [0, 0]
    assert per_user(Metric("mrr", 8), np.zeros((2, 0), bool), np.array([1, 9])).tolist() == [0, 0]


def test_names_are_read_in_any_case_and_print_back():
    assert parse(" NDCG@10 ") == Metric("ndcg", 10)
    assert str(parse("recall_min@20")) == "recall_min@20"


def test_a_wrong_name_gets_its_neighbour_and_a_wrong_cut_off_an_example():
    with pytest.raises(UnknownName, match=r"Unknown metric 'ngdc'\. Did you mean 'ndcg'\?"):
        parse("ngdc@10")
    for text in ("ndcg", "ndcg@0", "ndcg@ten", "@5", "ndcg@-1"):
        with pytest.raises(UsageError, match=r"a name and a cut-off of at least 1; got '.*'\. Write 'ndcg@10'"):
            parse(text)


def test_users_without_targets_and_doubled_items_are_refused():
    with pytest.raises(UsageError, match=r"User 1 of this batch has no target; got 0.*Leave users without targets out"):
        per_user(Metric("hr", 3), HITS, np.array([2, 0, 1]))
    with pytest.raises(UsageError, match="User 0 of this batch has more hits than targets"):
        per_user(Metric("hr", 3), HITS, np.array([1, 5, 1]))
    with pytest.raises(UsageError, match=r"hits \(Q, R\) and targets \(Q,\)"):
        per_user(Metric("hr", 3), HITS, np.array([1, 5]))
