"""A bundle asked in the rows of a log."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recdistill.data.csr import Csr
from recdistill.data.sources import read
from recdistill.data.split import split
from recdistill.data.synthetic import planted
from recdistill.evaluation.ranking import ranker
from recdistill.recipes.evaluate import Matched, evaluate_bundle
from recdistill.recipes.listener import Silent
from recdistill.recipes.train import TrainSettings, fit


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


@pytest.mark.parametrize("model", ["mf", "gru4rec"])
def test_who_reads_histories_is_said_to_stand_where_training_left_it(model, tmp_path):
    log = planted(users=30, items=40, interactions=400, dim=3, seed=1)
    columns = {"user_id": log.users.external(log.user), "item_id": log.items.external(log.item)}
    data = tmp_path / "log.parquet"
    pl.DataFrame({key: list(each) for key, each in columns.items()} | {"timestamp": log.timestamp}).write_parquet(data)
    parts = split(read(data, echo=None))
    trained = fit(model, parts.train, dim=4, training=TrainSettings(epochs=1, device="cpu"))
    trained.save(tmp_path / "bundle")
    for part in ("test", "valid"):
        said: list[str] = []
        listener = Silent()
        listener.say = said.append
        evaluate_bundle(tmp_path / "bundle", data, part=part, latency=False, listener=listener)
        told = [text for text in said if "stand where training left them" in text]
        assert len(told) == (model == "gru4rec" and part == "test")
