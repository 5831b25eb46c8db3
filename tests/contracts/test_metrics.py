"""What every registered metric promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.evaluation.metrics import METRICS, Metric, from_rank, parse, per_user

K = 5
DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
pytestmark = pytest.mark.parametrize("name", METRICS)
lists = st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=1, max_size=6)


def values(name, hits, targets, k=K):
    return per_user(Metric(name, k), np.array(hits, bool), np.array(targets, np.int64))


@settings(max_examples=30, deadline=None)
@given(hits=lists, more=st.integers(1, 4))
def test_values_lie_between_none_and_all(name, hits, more):
    targets = np.sum(hits, axis=1) + more
    found = values(name, hits, targets)
    assert found.shape == (len(hits),)
    assert ((found >= 0) & (found <= 1)).all()
    assert (found[~np.array(hits)[:, :K].any(1)] == 0).all()


@settings(max_examples=30, deadline=None)
@given(hits=lists, place=st.integers(0, 7))
def test_one_more_hit_never_costs_and_past_the_cut_off_changes_nothing(name, hits, place):
    before, after = np.array(hits), np.array(hits)
    after[:, place] = True
    targets = np.full(len(hits), 9)
    gain = values(name, after, targets) - values(name, before, targets)
    assert (gain >= -1e-12).all()
    if place >= K:
        assert (gain == 0).all()


@settings(max_examples=20, deadline=None)
@given(hits=lists, seed=st.integers(0, 99))
def test_users_do_not_know_each_other(name, hits, seed):
    order = np.random.default_rng(seed).permutation(len(hits))
    targets = np.sum(hits, axis=1) + 1
    np.testing.assert_array_equal(
        values(name, hits, targets)[order], values(name, np.array(hits)[order], targets[order])
    )


@pytest.mark.parametrize("targets", [1, 3, 9])
def test_the_best_list_is_worth_the_most(name, targets):
    best = np.arange(K) < targets
    top = values(name, [best], [targets])[0]
    expected = {"precision": min(targets, K) / K, "recall": min(targets, K) / targets}.get(name, 1.0)
    assert top == pytest.approx(expected)


def test_one_target_by_its_rank_is_the_same_as_by_its_list(name):
    rank = np.arange(1, 9)
    hits = np.eye(8, dtype=bool)
    np.testing.assert_allclose(from_rank(Metric(name, K), rank.astype(float)), values(name, hits, np.ones(8)))
    assert from_rank(Metric(name, K), np.array([np.inf]))[0] == 0, "a user without an answer"


def test_it_is_called_by_its_name_and_has_its_line_in_the_docs(name):
    assert str(parse(f" {name.upper()}@ 7")) == f"{name}@7"
    assert f"| `{name}@K` |" in DOCS.read_text()
