"""Every model and method on a device of its own: no tensor stays behind, and the numbers are those of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import recdistill as rd
from recdistill.continual import learning
from recdistill.data.synthetic import planted
from recdistill.methods import METHODS
from recdistill.models import MODELS
from recdistill.recipes.search import retrain, search
from recdistill.recipes.train import TrainSettings, distill, fit
from recdistill.runtime import Runtime
from recdistill.stream import finetune
from recdistill.stream.stream import Stream

from .pretended import DEVICE, pretended
from .test_methods import SEQUENTIAL, small

TWICE = TrainSettings(epochs=2, batch=32, metrics=("ndcg@10",))
NEXT = TWICE.model_copy(update={"loss": "cross-entropy", "weight_decay": 0.0})

LR = 1e-3
"""Of a stream's methods by default."""
LENIENT = """
[gates]
worse = 1.0
forgetting = 1.0
new_users = false
overlap = [0.0, 1.0]
coverage = [0.0, 100.0]
"""


@pytest.fixture(scope="module")
def parts(log):
    return rd.split(log, "leave-last-out")


def how(model):
    """The training of a model."""
    return NEXT if "length" in MODELS[model].settings.model_fields else TWICE


def there_and_here(train):
    """What `train()` trains on a device of its own, and on the CPU."""
    with pretended():
        there = train()
        assert {each.device for each in there.model.state_dict().values()} == {DEVICE}
    here = train()
    for name, value in here.model.state_dict().items():
        moved = there.model.state_dict()[name].here
        torch.testing.assert_close(moved, value, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    return there, here


def test_what_is_on_two_devices_does_not_meet():
    with pretended():
        there = torch.arange(4, device=DEVICE)
        assert there.device == DEVICE
        assert (there.float() * 2).sum().item() == 12
        assert there[torch.tensor([1, 2])].tolist() == [1, 2]
        with pytest.raises(RuntimeError, match="same device"):
            _ = there + torch.ones(4)
        with pytest.raises(RuntimeError, match="same device"):
            _ = torch.ones(4)[there]
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()


@pytest.mark.parametrize("model", MODELS)
def test_a_model_trains_and_comes_back_from_its_checkpoint(model, parts, tmp_path):
    def train():
        where = tmp_path / ("there" if Runtime.of().device == DEVICE else "here")
        for _ in range(2):
            got = fit(model, parts.train, dim=8, valid=parts.valid, seed=1, training=how(model), checkpoint=where)
        return got

    there_and_here(train)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_distils(method, parts):
    student, model = ("cells", "sasrec") if method in SEQUENTIAL else ("mf", "mf")

    def train():
        teacher = fit(model, parts.train, dim=8, valid=parts.valid, seed=1, training=how(model))
        return distill(
            teacher,
            student,
            parts.train,
            dim=4,
            method=method,
            valid=parts.valid,
            seed=1,
            settings=small(method),
            training=how(student),
        )

    there_and_here(train)


@pytest.mark.parametrize(
    ("teacher", "method"),
    [("lists", "rrd"), ("scores", "rce-kd"), ("vectors", "htd"), ("bundle", "cd"), ("joined", "pckd")],
)
def test_a_teacher_from_files_teaches(teacher, method, teachers, parts):
    def train():
        how = {"method": method, "settings": small(method), "training": TWICE}
        return distill(teachers[teacher], "mf", parts.train, dim=4, valid=parts.valid, seed=1, **how)

    there_and_here(train)


def test_a_search_finds_the_same_cells(parts):
    found = []

    def train():
        teacher = fit("sasrec", parts.train, dim=8, valid=parts.valid, seed=1, training=NEXT)
        settings = {
            "epochs": 2,
            "cells": 2,
            "frame": {"dim": 8},
            "level": "bi",
            "depth": True,
            "refine": {"designs": 6},
        }
        found.append(search(teacher, parts.train, valid=parts.valid, settings=settings))
        return retrain(found[-1], teacher, parts.train, valid=parts.valid, training=NEXT)

    there_and_here(train)
    there, here = found
    assert there.design.operators == here.design.operators


@pytest.fixture
def trained_on(monkeypatch):
    """The devices that stages of streams have trained on."""
    devices = []
    for module in (learning, finetune):

        def told(*args, runtime, real=module.fit, **kwargs):
            devices.append(runtime.device)
            return real(*args, runtime=runtime, **kwargs)

        monkeypatch.setattr(module, "fit", told)
    return devices


SHORT = "epochs = 2, batch = 256, every = 1"
OTHER = """
distil = { start = "warm", passes = "epoch", most = 30, near = 5, training = { %s } }
update = { training = { %s }, replay = { depth = 10, users = 30, among = 40 } }
teach = { training = { %s }, replay = { depth = 10 }, contrast = { reach = "batch", anchors = 8 } }
""" % ((SHORT + ', moments = "carried", decay = "all"',) * 3)


@pytest.mark.parametrize("method", ["finetune", "mf", "lightgcn", "vae", "otherwise"])
def test_a_stream_steps_to_its_last_block(method, tmp_path, trained_on):
    """Every stage of continual distillation, with an ensemble of each kind, and of fine-tuning."""
    short = f"{{ {SHORT} }}"
    each = "mf" if method == "otherwise" else method
    usual = f"""
        distil = {{ near = 5, item_weight = 0.1, training = {short} }}
        update = {{ training = {short}, replay = {{ depth = 10 }}, avoid = 5 }}
        teach = {{ training = {short}, replay = {{ depth = 10 }}, avoid = 5 }}
    """
    ccd = f"""
        name = "ccd"
        student = {{ dim = 4, init_std = 0.3 }}
        teachers = [{{ name = "{each}", dim = 6, layers = 1, init_std = 0.3 }}]
        base = {short}
        plain = {short}
        {OTHER if method == "otherwise" else usual}
    """
    tuned = f'name = "finetune"\ndim = 4\nteacher_dim = 6\nbase = {short}\nupdate = {short}\ndistil = {short}'
    log = planted(users=40, items=60, interactions=900, dim=4, seed=1)
    rows = zip(log.users.external(log.user), log.items.external(log.item), log.timestamp, strict=True)
    (tmp_path / "events.csv").write_text("user,item,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    third = len(log) // 3
    blocks = f"[blocks]\nbase = {third}\nevents = {third}\nleast = 5\n{LENIENT}"

    def stepped(name, device):
        settings = f'device = "{device}"\n{blocks}[method]\n{tuned if method == "finetune" else ccd}'
        with Stream.create(tmp_path / name, settings) as stream:
            stream.ingest(tmp_path / "events.csv", now=0.0)
            stream.step()
            last = stream.versions.serving()
            assert last.startswith("000002")
            return {name: np.array(value) for name, value in stream.versions.open(last).arrays.items()}

    here = stepped("here", "cpu")
    assert set(trained_on) == {torch.device("cpu")}
    del trained_on[:]
    with pretended():
        there = stepped("there", "cuda")
    assert set(trained_on) == {DEVICE}
    assert here.keys() == there.keys()
    for name, value in here.items():
        off = ~np.isclose(there[name], value, rtol=1e-3, atol=1e-5)
        # of a gradient that cancels but for rounding Adam makes a whole step
        assert off.reshape(len(off), -1).any(1).mean() <= 0.05, name
        np.testing.assert_allclose(there[name], value, atol=5 * LR, err_msg=name)
