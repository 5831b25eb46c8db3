"""Logs that are made up: their promises, and that there is something in them to distil."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.data.split import split
from recdistill.data.synthetic import planted, random_log
from recdistill.errors import UsageError


def test_a_planted_log_is_what_it_says():
    log = planted(users=60, items=90, interactions=900, dim=6, seed=3)
    assert (log.n_users, log.n_items) == (60, 90)
    assert abs(len(log) - 900) < 30
    assert log.csr().degrees.min() >= 5
    assert len(log.csr()) == len(log)  # no pair twice
    assert (np.diff(log.timestamp) >= 0).all()
    assert log.users.external([0, 59]).tolist() == ["u0", "u59"]
    assert 1_577_836_800 <= log.timestamp.min() <= log.timestamp.max() < 1_577_836_800 + 366 * 86_400


def test_the_seed_decides_it():
    one, same, other = (planted(users=30, items=60, interactions=300, dim=4, seed=s) for s in (1, 1, 2))
    assert (one.user == same.user).all()
    assert (one.item == same.item).all()
    assert len(one) != len(other) or (one.item != other.item).any()


def test_blocks_change_nothing(monkeypatch):
    whole = planted(users=50, items=40, interactions=400, dim=4)
    monkeypatch.setattr("recdistill.data.synthetic._BLOCK", 100)
    again = planted(users=50, items=40, interactions=400, dim=4)
    assert (whole.user == again.user).all()
    assert (whole.item == again.item).all()


def test_more_dimensions_rank_clearly_better():
    """Truncated SVD of the training matrix (Cremonesi et al., RecSys 2010): 8 directions lose what 24 keep."""
    parts = split(planted(), "leave-random-out")
    seen, queries = parts.test.seen, parts.test.queries
    matrix = np.zeros((seen.n_rows, seen.n_columns), np.float32)
    matrix[np.repeat(np.arange(seen.n_rows), seen.degrees), seen.indices] = 1
    popular = matrix.sum(axis=0)
    u, s, v = np.linalg.svd(matrix, full_matrices=False)

    def hits(score):
        score = np.where(matrix > 0, -np.inf, score)[queries]
        target = score[np.arange(len(queries)), parts.test.targets.indices]
        return float(((score > target[:, None]).sum(axis=1) < 10).mean())

    of = {d: hits((u[:, :d] * s[:d]) @ v[:d]) for d in (8, 24)}
    assert of[24] > 2 * of[8]
    assert of[8] > 1.5 * hits(np.broadcast_to(popular, matrix.shape))


def test_a_random_log_has_the_sizes_asked_and_a_head():
    log = random_log(100, 1000, 50_000, seed=2)
    assert (log.n_users, log.n_items, len(log)) == (100, 1000, 50_000)
    assert log.user.dtype == log.item.dtype == np.int32
    popularity = np.bincount(log.item, minlength=1000)
    assert popularity[:10].sum() > 5 * popularity[-10:].sum()  # sqrt(0.01) = 0.1 of all against 0.005
    assert abs(popularity[:10].mean() / 500 - 1) < 0.1


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(
        UsageError, match=r"number of interactions does not fit users and items; got 10. Allowed: 50 to"
    ):
        planted(users=10, items=100, interactions=10)
    with pytest.raises(UsageError, match="items must be at least 10; got 3"):
        planted(users=10, items=3, interactions=50)
    with pytest.raises(UsageError, match="n must be at least 1; got 0"):
        random_log(1, 1, 0)
