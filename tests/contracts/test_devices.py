"""Every model and method on a device of its own: no tensor stays behind, and the numbers are those of the CPU."""

from __future__ import annotations

import pytest
import torch

import recdistill as rd
from recdistill.methods import METHODS
from recdistill.models import MODELS
from recdistill.recipes.search import retrain, search
from recdistill.recipes.train import TrainSettings, distill, fit
from recdistill.runtime import Runtime

from .pretended import DEVICE, pretended
from .test_methods import SEQUENTIAL, small

TWICE = TrainSettings(epochs=2, batch=32, metrics=("ndcg@10",))
NEXT = TWICE.model_copy(update={"loss": "cross-entropy", "weight_decay": 0.0})


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
        where = tmp_path / ("there" if Runtime.of("cpu").device == DEVICE else "here")
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
