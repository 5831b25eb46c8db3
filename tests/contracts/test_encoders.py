"""What every sequential model promises of its export, whichever it is. A new model is tested by being registered."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from recdistill import bundle
from recdistill.bundle.encoder import Encoder
from recdistill.data.histories import Histories
from recdistill.data.interactions import Interactions
from recdistill.models import MODELS
from recdistill.models.sequential import Sequential
from recdistill.query import Query
from recdistill.search import model as _  # noqa: F401 - registers cells
from recdistill.search.space import SPACES
from recdistill.serve.service import Service
from recdistill.settings import parse

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="the extra 'onnx' is not installed")

from recdistill.export.encoder import encoder  # noqa: E402

LENGTH = 7


def rows(space, per_cell=6):
    """Every operator of a space, each on an edge."""
    names = [*SPACES[space].names, *SPACES[space].names[: -len(SPACES[space].names) % per_cell]]
    return [names[at : at + per_cell] for at in range(0, len(names), per_cell)]


PLAIN = {name: (name, {}) for name in MODELS if "length" in MODELS[name].settings.model_fields}
OTHERS = {
    "bert4rec, second stage": ("bert4rec", {"cloze": 0, "form": "pre", "layers": 1}),
    "sasrec, untied with biases": ("sasrec", {"tied": False, "bias": True, "form": "rezero", "layers": 1}),
    "one item": ("sasrec", {"length": 1, "layers": 1}),
    "gru4rec, two layers": ("gru4rec", {"layers": 2, "bias": True}),
    "every causal operator": ("cells", {"cells": len(rows("causal")), "operators": rows("causal"), "exit": True}),
    "attention between cells": ("cells", {"cells": 2, "space": "attentive", "cell": "sasrec"}),
    "every attentive operator": (
        "cells",
        {"cells": len(rows("attentive")), "operators": rows("attentive"), "space": "attentive"},
    ),
    "every published operator": (
        "cells",
        {"cells": len(rows("published")), "operators": rows("published"), "space": "published", "scored": "last"},
    ),
    "cells that read padding": ("cells", {"cells": 1, "cell": "random-2", "pads": True}),
    "cells of nothing": ("cells", {"cells": 1, "cell": "all-none", "positions": False, "norm": False}),
}


@pytest.fixture(scope="session")
def ordered(log):
    """The log with users of 1 to 12 items, in order, one of them twice."""
    draw = np.random.default_rng(2)
    lengths = np.arange(24) % 12 + (np.arange(24) != 5)
    lengths[5] = 0
    user = np.repeat(np.arange(24), lengths).astype(np.int32)
    return Interactions(
        users=log.users, items=log.items, user=user, item=draw.integers(1, 36, len(user)).astype(np.int32)
    )


@pytest.fixture(scope="session")
def exported(ordered):
    """`exported(kind)`: a model with stirred weights and its encoder, made once."""
    made = {}

    def make(kind):
        if kind not in made:
            name, settings = {**PLAIN, **OTHERS}[kind]
            entry = MODELS[name]
            chosen = parse(entry.settings, {"dim": 6, "length": LENGTH, **settings}) if kind not in PLAIN else None
            chosen = chosen or parse(entry.settings, {"dim": 6})
            net = entry.build(chosen, ordered.n_users, ordered.n_items, 3, ordered)
            generator = torch.Generator().manual_seed(3)
            with torch.no_grad():
                for p in net.parameters():
                    p.add_(torch.randn(p.shape, generator=generator), alpha=0.4)
            assert isinstance(net, Sequential)
            made[kind] = net, encoder(net)
        return made[kind]

    return make


each_kind = pytest.mark.parametrize("kind", [*PLAIN, *OTHERS])


@each_kind
def test_any_batch_and_length_is_answered_as_by_the_model(kind, exported):
    net, part = exported(kind)
    ours = Encoder(part.graph, part.entry, part.table)
    draw = np.random.default_rng(0)
    net.eval()
    for q, t in [(1, 1), (1, 5), (4, 2), (9, 7), (2, 13), (40, 3)]:
        history = draw.integers(0, net.n_items, (q, t))
        history[np.arange(t) < draw.integers(0, t + 1, q)[:, None]] = -1
        asked = Query(torch.zeros(q, dtype=torch.int64), history=torch.from_numpy(history))
        with torch.no_grad():
            want = net.view(asked).vectors().numpy()
        assert np.allclose(ours.vectors(history), want, rtol=1e-4, atol=1e-5), (q, t)


@each_kind
def test_its_parity_was_measured_and_stands_in_its_entry(kind, exported):
    net, part = exported(kind)
    found = part.entry.measured["parity"]
    assert found["identical"] + found["tied"] == found["histories"] > 23
    assert found["difference"] <= 1e-4
    assert part.entry.width == 6
    assert part.entry.gives == net.served_items().shape[1]
    assert part.entry.parameters == sum(p.numel() for p in net.parameters()) - sum(
        p.numel() for p in (net.item, net.out, net.bias) if p is not None
    )


@each_kind
def test_no_table_of_items_and_nothing_of_this_machine_is_in_the_graph(kind, exported):
    onnx = pytest.importorskip("onnx")
    net, part = exported(kind)
    graph = onnx.load_from_string(part.graph).graph
    sizes = [int(np.prod(one.dims)) for one in graph.initializer]
    assert all(net.n_items not in one.dims for one in graph.initializer)
    assert sum(sizes) < part.entry.parameters + 400
    assert os.fsencode(os.getcwd()) not in part.graph  # noqa: PTH109
    assert b".py" not in part.graph


@pytest.mark.parametrize("kind", PLAIN)
def test_a_bundle_answers_known_users_and_new_clicks_in_a_process_without_torch(kind, exported, ordered, tmp_path):
    net, part = exported(kind)
    bundle.save(
        tmp_path / "b", kind=net.kind, arrays=net.arrays(), users=ordered.users, items=ordered.items,
        seen=ordered.csr(), popular=np.array([0]), model=kind, settings={}, lineage={}, metrics={}, citations=[],
        encoder=part,
    )  # fmt: skip
    asked = {"u9": [], "u11": ["i3", "i4", "nothing"], "stranger": ["i3"], "nobody": []}
    live = Service(
        net.ranker(), ordered.users, ordered.items, ordered.csr(), np.array([0]), encode=net.encode,
        histories=net.histories,
    ).recommend_after(asked, k=4)  # fmt: skip
    code = f"""
import sys
sys.modules["torch"] = None
from pathlib import Path
from recdistill.serve import Service
service = Service.from_bundle(Path({str(tmp_path / "b")!r}), verify="full")
told = service.recommend_after({asked!r}, k=4)
assert told.source_of("stranger") == "model" and told.source_of("nobody") == "popular"
assert told.notes == ("histories: 1 of 4 items are not in the catalogue and were ignored",), told.notes
print(*told.item_id.tolist())
assert not {{"polars", "onnx", "onnxscript"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == live.item_id.tolist()


@each_kind
def test_histories_of_the_bundle_are_the_ends_that_the_model_reads(kind, exported):
    net, part = exported(kind)
    everybody = np.arange(net.n_users)
    short = Histories(part.histories.indptr, part.histories.items)
    assert short.lengths.max() <= net.length
    assert np.array_equal(short.padded(everybody, net.reads), net.histories.padded(everybody, net.reads))
