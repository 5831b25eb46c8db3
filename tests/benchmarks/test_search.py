"""How `benchmarks/search.py` asks the official code for its steps; a module of the same names stands in for it."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch

from recdistill.data.synthetic import planted
from recdistill.search.batches import PartBatches

OFFICIAL = """
from types import SimpleNamespace
import numpy as np
import torch
from pyemd import emd_with_flow

class Net(torch.nn.Module):
    def __init__(self, args):
        super().__init__()
        self.one = torch.nn.Parameter(torch.zeros(args.loader_num_items + 1, args.loader_max_len))
    def net_parameters(self):
        return self.parameters()
    alpha_parameters = net_parameters

NextItNet = StudentSearch = Net

def student_search_parser(teacher_type):
    return SimpleNamespace(parse_args=lambda words: SimpleNamespace(preset=words[1]))

def load_preset(args):
    args.train_model_lr = args.train_alpha_lr = args.train_model_wd = args.train_alpha_wd = 1e-3

def do_train(epoch):
    print("a line of its log")
    plan = emd_with_flow(np.full(2, 0.5), np.full(2, 0.5), np.array([[0.0, 1.0], [1.0, 0.0]]))
    (inputs, labels), = train_loader
    np.savez(FOUND, inputs=inputs, labels=labels, shape=model_search.one.shape, plan=plan[1], least=np.float(plan[0]))
"""


@pytest.fixture
def batch():
    train = planted(users=12, items=20, interactions=120, dim=4, seed=1)
    batches = PartBatches(train, length=6, size=8, every=True, seed=0, device=torch.device("cpu"))
    return next(batches.epoch(0))


def test_the_official_code_gets_the_same_histories_and_what_follows_every_item(script, batch, tmp_path):
    found = tmp_path / "found.npz"
    (tmp_path / "student_search.py").write_text(OFFICIAL.replace("FOUND", repr(str(found))))
    with script.official(tmp_path, batch, 20, threads=1) as step:
        step()
        step()
    with np.load(found) as given:
        inputs, labels = given["inputs"], given["labels"]
        assert given["shape"].tolist() == [21, batch.query.history.shape[1]]
        assert (given["plan"].tolist(), float(given["least"])) == ([[0.5, 0.0], [0.0, 0.5]], 0.0)
    assert inputs.tolist() == (batch.query.history + 1).tolist()
    assert ((labels > 0) == (inputs > 0)).all()
    assert (labels[:, :-1] == np.where(inputs[:, :-1] > 0, inputs[:, 1:], 0)).all()
    assert sorted(chain(*labels.tolist()))[-len(batch.positive) :] == sorted((batch.positive + 1).tolist())


def test_an_official_code_that_ends_is_said_to_have_ended(script, batch, tmp_path):
    (tmp_path / "student_search.py").write_text(
        OFFICIAL.replace("def do_train(epoch):", "def do_train(epoch):\n    1 / 0")
    )
    with (
        pytest.raises(SystemExit, match="ended before its step"),
        script.official(tmp_path, batch, 20, threads=1) as step,
    ):
        step()
