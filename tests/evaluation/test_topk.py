"""Items that may be shown: the search obeys, whatever else is left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.csr import Csr
from recdistill.errors import UsageError
from recdistill.evaluation.topk import Shown
from recdistill.evaluation.vectors import VectorRanker


def naive(user, item, k, gone, mask):
    out = []
    for u in range(len(user)):
        score = (user[u].astype(np.float64) * item.astype(np.float64)).sum(1).astype(np.float32)
        left = [i for i in range(len(item)) if mask[i] and i not in gone.row(u)]
        left.sort(key=lambda i: (-score[i], i))
        out.append((left + [-1] * k)[:k])
    return out


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 2500), st.integers(1, 9), st.integers(1, 40)),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    seed=st.integers(0, 99),
    integers=st.booleans(),
)
def test_lists_are_those_of_a_naive_twin(sizes, share, seed, integers):
    n, q, k = sizes
    rng = np.random.default_rng(seed)
    user, item = rng.normal(size=(q, 3)).astype(np.float32), rng.normal(size=(n, 3)).astype(np.float32)
    if integers:  # many equal scores, and users to whom all are equal
        user, item = np.round(user), np.round(item)
    gone = Csr.from_pairs(rng.integers(0, q, 30), rng.integers(0, n, 30), q, n)
    mask = rng.random(n) < share
    found = VectorRanker(user, item).top_k(np.arange(q), k, gone, shown=Shown(mask))
    assert found.tolist() == naive(user, item, k, gone, mask)


def test_a_mask_of_another_catalogue_is_refused():
    ranker = VectorRanker(np.ones((1, 2), np.float32), np.ones((5, 2), np.float32))
    with pytest.raises(UsageError, match=r"`shown` must say of every item.*got \(4,\)"):
        ranker.top_k(np.array([0]), 1, shown=Shown(np.ones(4, np.bool_)))


def test_a_mask_is_what_it_was_when_it_was_given():
    mask = np.array([True, False, True])
    shown = Shown(mask)
    mask[:] = False
    assert shown.n == 2
    assert shown.added(4).tolist() == [0, -np.inf, 0, -np.inf]
