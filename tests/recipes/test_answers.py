"""From a history to a list: what is timed is what is served, and gives the answers of the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.data.split import split
from recdistill.data.synthetic import planted
from recdistill.errors import UsageError
from recdistill.models import MODELS
from recdistill.query import Query
from recdistill.recipes.answers import Answers, answers, served
from recdistill.search.norm import PositionNorm


@pytest.fixture(scope="module")
def parts():
    return split(planted(users=30, items=40, interactions=500, dim=4, seed=1), "leave-last-out")


def built(name, parts, **settings):
    entry = MODELS[name]
    model = entry.build(entry.settings(**settings), parts.train.n_users, parts.train.n_items, 3, parts.train)
    g = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, PositionNorm):
            module.mean.copy_(torch.randn(module.mean.shape, generator=g))
    return model


@pytest.mark.parametrize("more", [{}, {"pads": True}, {"exit": True, "operators": (("cau_cnn_3_d1",) * 6,)}])
def test_a_served_student_scores_as_the_model_does_with_its_cells_folded(parts, more):
    model = built("cells", parts, dim=8, length=10, cells=2, cell="random-3", **more).eval()
    copy = served(model)
    assert "folded" in dict(copy.chain.named_children())
    assert sum(p.numel() for p in model.chain.parameters()) == model.n_body  # the model itself is as it was
    history = model.history_of(torch.arange(30))
    query = Query(torch.zeros(30, dtype=torch.int64), history=history)
    with torch.no_grad():
        assert torch.allclose(copy.view(query).vectors(), model.view(query).vectors(), atol=1e-5)


def test_all_are_timed_in_one_thread_on_the_same_histories(parts):
    models = {name: built(name, parts, dim=8, length=10) for name in ("gru4rec", "cells", "sasrec")}
    before = torch.get_num_threads()
    users = parts.test.queries
    found = answers(models, parts.test.histories, users, exclude=parts.test.seen, n_users=12, batch=8, seconds=0.0)
    assert torch.get_num_threads() == before
    assert list(found) == list(models)
    for each in found.values():
        assert each.latency.n_users_timed == 10  # ten at least, whatever the seconds
        assert each.latency.threads == 1
        assert 0 < each.encoder_ms <= each.latency.p99_ms
        assert each.latency.p50_ms <= each.latency.p95_ms <= each.latency.p99_ms
        assert each.batch == 8
        assert Answers.of(each.plain()) == each


def test_nobody_to_time_is_an_error(parts):
    model = {"cells": built("cells", parts, dim=8, length=10)}
    with pytest.raises(UsageError, match="Timing needs a user, and sizes of at least 1"):
        answers(model, parts.test.histories, np.zeros(0, np.int64), exclude=parts.test.seen)
