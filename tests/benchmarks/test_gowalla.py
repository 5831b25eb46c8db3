"""`benchmarks/gowalla.py` on a log that is made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recdistill.data.synthetic import planted

AT = {"device": "cpu", "batch": 64}


@pytest.fixture
def log():
    log = planted(users=40, items=60, interactions=800, dim=4, seed=1)
    part = np.random.default_rng(1).choice([0, 1, 2], size=len(log), p=[0.7, 0.1, 0.2])
    return replace(log, split=part.astype(np.int8))


def test_the_best_setting_is_chosen_without_the_test_part_and_is_trained_on_everything_else(
    script, log, tmp_path, monkeypatch
):
    monkeypatch.setattr(script, "TRIALS", {"mf": [(1e-6, 0.0), (1e-2, 0.0)]})
    other = replace(log, item=np.where(log.split == 2, log.item[::-1], log.item))  # another test part
    bench = script.Bench(log, tmp_path / "a", AT, most=5)
    chosen = bench.choose("mf")
    assert script.Bench(other, tmp_path / "b", AT, most=5).choose("mf") == chosen
    assert (chosen.lr, chosen.epochs % 5) == (1e-2, 0)
    seen = []
    fit = script.fit
    monkeypatch.setattr(script, "fit", lambda *words, **more: seen.append((words, more)) or fit(*words, **more))
    test = bench.measure("mf", chosen, [1, 2])
    assert [len(values) for values in test.values()] == [2, 2]
    ((_, train), more), _ = seen
    assert len(train) == (log.split < 2).sum()
    assert more["valid"] is None
    assert more["training"]["epochs"] == chosen.epochs


def test_a_bar_that_is_missed_is_said_to_be(script):
    chosen = {"lr": 1e-3, "epochs": 500}
    test = {"recall@20": [0.183, 0.184], "ndcg@20": [0.15, 0.153]}
    assert script.row({"model": "lightgcn", "chosen": chosen, "test": test}) == (
        "lightgcn lr 0.001, 500 epochs: recall@20 0.1835 [0.1830-0.1840] (bar 0.1820: reached), "
        "ndcg@20 0.1515 [0.1500-0.1530] (bar 0.1540: MISSED)"
    )
