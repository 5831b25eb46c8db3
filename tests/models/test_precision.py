"""Training in bfloat16: products alone are narrow, and only while a model learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import recdistill as rd
from recdistill.data.interactions import Interactions
from recdistill.errors import UsageError
from recdistill.ids import IdTable
from recdistill.models import MODELS
from recdistill.models.sequence_view import Encoding
from recdistill.models.sequential import Sequential
from recdistill.search import model as cells
from recdistill.settings import parse

NAMES = ["sasrec", "nextitnet", "bert4rec", "gru4rec", "cells"]
TRAINING = {"epochs": 2, "batch": 8, "loss": "cross-entropy", "negatives": 0, "weight_decay": 0.0, "device": "cpu"}


@pytest.fixture(scope="module")
def log():
    """40 users x 15 items, 3 to 12 items a user."""
    draw = np.random.default_rng(0)
    user = np.repeat(np.arange(40), draw.integers(3, 13, 40))
    return Interactions(
        IdTable.from_ids([f"u{n}" for n in range(40)]),
        IdTable.from_ids([f"i{n}" for n in range(15)]),
        user.astype(np.int32),
        draw.integers(0, 15, len(user)).astype(np.int32),
        timestamp=np.arange(len(user), dtype=np.int64),
    )


def build(name, log):
    entry = MODELS[name]
    settings = {"dim": 16, "length": 6} | ({"scale": "one"} if name == "nextitnet" else {})  # else it begins as nothing
    model = entry.build(parse(entry.settings, settings), log.n_users, log.n_items, 1, log)
    assert isinstance(model, Sequential if name != "cells" else cells.Cells)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_states_in_training_are_rounded_products_in_float32(log, name):
    model, history = build(name, log), torch.tensor([[-1, 3, 1, 4, 1, 5], [2, 7, 1, 8, 2, 8]])
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    found = {}
    for precision in ("float32", "bfloat16"):
        model.precision = precision
        found[precision] = Encoding(model.train(), history, key=0).states
    assert found["bfloat16"].dtype == torch.float32
    assert not torch.equal(found["bfloat16"], found["float32"])
    torch.testing.assert_close(found["bfloat16"], found["float32"], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_evaluated_and_served_does_not_depend_on_it(log, name):
    model, history = build(name, log).eval(), torch.tensor([[-1, 3, 1, 4, 1, 5]])
    there = Encoding(model, history).states
    model.precision = "bfloat16"
    assert torch.equal(Encoding(model, history).states, there)


def test_gradients_and_parameters_stay_float32(log):
    wide = rd.fit("nextitnet", log, dim=16, seed=1, settings={"length": 6}, training=TRAINING, echo=None)
    narrow = rd.fit(
        "nextitnet",
        log,
        dim=16,
        seed=1,
        settings={"length": 6},
        training={**TRAINING, "precision": "bfloat16"},
        echo=None,
    )
    assert {p.dtype for p in narrow.model.parameters()} == {torch.float32}
    assert not torch.equal(narrow.model.blocks[0].near.weight, wide.model.blocks[0].near.weight)
    assert narrow.settings["train"]["precision"] == "bfloat16"


def test_a_model_without_layers_refuses_it(log):
    with pytest.raises(UsageError, match=r"A 'mf' is not trained in that precision.*bfloat16.*float32"):
        rd.fit("mf", log, dim=4, training={"epochs": 1, "precision": "bfloat16"}, echo=None)
