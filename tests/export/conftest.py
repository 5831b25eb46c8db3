"""A small trained-looking model, and its encoder."""

from __future__ import annotations

import pytest
import torch

from recdistill.data.split import split
from recdistill.data.synthetic import planted
from recdistill.models import MODELS
from recdistill.settings import parse

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="the extra 'onnx' is not installed")


@pytest.fixture(scope="session")
def parts():
    return split(planted(users=60, items=90, interactions=900, dim=4, seed=1), "leave-last-out")


@pytest.fixture(scope="session")
def built(parts):
    """`built("sasrec", layers=1)`: with weights far from their small initial ones, in evaluation."""

    def build(name="sasrec", **settings):
        entry, train = MODELS[name], parts.train
        chosen = parse(entry.settings, {"dim": 8, "length": 9, **settings})
        net = entry.build(chosen, train.n_users, train.n_items, 0, train)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn(p.shape, generator=generator), alpha=0.3)
        return net.eval()

    return build
