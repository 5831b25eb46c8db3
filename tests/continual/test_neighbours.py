"""Who is like whom."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.continual import neighbours
from recdistill.continual.neighbours import alike
from recdistill.data.csr import Csr

CHANCE = np.random.default_rng(2)
ROWS = Csr.from_pairs(CHANCE.integers(0, 40, 220), CHANCE.integers(0, 18, 220), 40, 18)


def cosines():
    dense = np.zeros((40, 18))
    dense[np.repeat(np.arange(40), ROWS.degrees), ROWS.indices] = 1
    length = np.sqrt(np.maximum(dense.sum(1), 1))
    out = dense @ dense.T / np.outer(length, length)
    np.fill_diagonal(out, 0)
    return out


@pytest.mark.parametrize("pairs", [1 << 22, 30])
def test_neighbours_are_those_of_the_dense_form_above_one_threshold(monkeypatch, pairs):
    monkeypatch.setattr(neighbours, "_PAIRS", pairs)
    found = alike(ROWS, degree=5)
    dense = cosines()
    got = np.zeros((40, 40), bool)
    got[np.repeat(np.arange(40), found.degrees), found.indices] = True
    threshold = dense[got].min()
    np.testing.assert_array_equal(got, dense >= threshold - 1e-12)
    assert 5 <= found.degrees.mean() < 6.5, "ties may add some"


def test_a_crowded_column_makes_nobody_alike():
    rows = Csr.from_pairs([0, 1, 2, 3, 0, 1], [0, 0, 0, 0, 1, 1], 4, 2)
    found = alike(rows, degree=1, crowded=3)
    assert [found.row(r).tolist() for r in range(4)] == [[1], [0], [], []]
