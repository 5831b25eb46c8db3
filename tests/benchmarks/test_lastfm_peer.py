"""The parts of `benchmarks/lastfm_peer.py` that train nothing."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.data.csr import Csr
from recdistill.evaluation.compare import paired_test


def test_pairs_are_users_beside_their_items(script):
    matrix = Csr.from_pairs(np.array([0, 2, 2]), np.array([1, 0, 3]), n_rows=3, n_columns=4)
    assert script.pairs(matrix).tolist() == [[0, 1], [2, 0], [2, 3]]


def test_both_sides_are_tuned_over_one_grid(script):
    for model in script.MODELS:
        ours, theirs = script.TRIALS["ours", model], script.TRIALS["recbole", model]
        assert [(s.lr, s.weight_decay) for s in ours] == [(s.lr, s.weight_decay) for s in theirs]
        assert len(set(ours)) == len(ours)


def test_trainings_that_differ_are_kept_apart(script):
    settings = [script.Setting(1e-3), script.Setting(1e-3, weight_decay=1e-6), script.Setting(2e-3)]
    runs = [
        script.Run(side, m, s, seed)
        for side in script.SIDES
        for m in script.MODELS
        for s in settings
        for seed in (1, 2)
    ]
    assert len({run.name for run in runs}) == len(runs)
    assert script.Run("ours", "mf", settings[0], 1).name == script.Run("ours", "mf", script.Setting(1e-3), 1).name


@pytest.mark.parametrize(("shift", "said"), [(-0.1, "**no**"), (0.0, "yes"), (0.1, "yes")])
def test_worse_beyond_the_interval_is_said_to_be_worse(script, shift, said):
    peer = np.random.default_rng(0).uniform(0.2, 0.8, size=(3, 200))
    told = script.differences({("mf", "ndcg@20"): paired_test(peer + shift, peer)})
    row = told.splitlines()[-1]
    assert row.startswith("| MF-BPR | NDCG@20 |")
    assert row.endswith(f"| {said} |")


def test_a_result_has_its_mean_and_its_range_over_seeds(script):
    test = {"recall@20": [0.1, 0.3], "ndcg@20": [0.05, 0.05]}
    row = {"side": "ours", "model": "lightgcn", "setting": {"lr": 5e-3}, "penalty": "none", "valid": 0.2, "test": test}
    assert script.results([row]).splitlines()[-1] == (
        "| LightGCN | ours | 0.005 | none | 0.2000 | 0.2000 (0.1000-0.3000) | 0.0500 (0.0500-0.0500) |"
    )
