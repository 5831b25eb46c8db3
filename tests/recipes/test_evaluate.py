"""A bundle asked in the rows of a log."""

from __future__ import annotations

import numpy as np

from recdistill.data.csr import Csr
from recdistill.evaluation.ranking import ranker
from recdistill.recipes.evaluate import Matched


def test_what_is_left_out_is_matched_once_for_one_table_and_anew_for_another(monkeypatch):
    model = {"user": np.ones((2, 1), np.float32), "item": np.array([[3], [2], [1]], np.float32)}
    matched = Matched(ranker("vectors", model), np.array([1, 0, -1]), np.array([2, 0, 1, -1]))
    first, second = (Csr.from_pairs([0, 1], items, 3, 4) for items in ([1, 2], [2, 3]))
    built: list[int] = []
    pairs = Csr.from_pairs
    monkeypatch.setattr(Csr, "from_pairs", lambda *given: built.append(1) or pairs(*given))
    every = np.arange(3)
    for _ in range(3):
        assert matched.top_k(every, 2, first).tolist() == [[2, 0], [1, 0], [-1, -1]]
    assert len(built) == 1
    assert matched.top_k(every, 2, second).tolist() == [[1, 0], [1, 2], [-1, -1]]
    assert matched.top_k(every, 2).tolist() == [[1, 2], [1, 2], [-1, -1]]
    assert len(built) == 2
