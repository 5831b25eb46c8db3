"""What distillation is for: on a log with planted structure the distilled student beats the same student alone."""

from __future__ import annotations

import pytest
import torch

import recdistill as rd
from recdistill.data.split import split
from recdistill.data.synthetic import planted
from recdistill.evaluation.evaluate import evaluate
from recdistill.methods import METHODS
from recdistill.recipes.train import TrainSettings, distill, fit

DIM = 8
EPOCHS = 16
COMMON = TrainSettings(epochs=EPOCHS, batch=512, lr=1e-2, weight_decay=1e-3, device="cpu")
RANKING = {"weight": 0.02, "near": 30, "far": 30, "depth": 120, "reach": 60}
EXPERTS = {"tau_epochs": EPOCHS, "tau_end": 1e-3}
SETTINGS = {
    "de": {"experts": 6, "weight": 0.05, **EXPERTS},
    "rrd": RANKING,
    "ir-rrd": {**RANKING, "item_weight": 0.01, "item_depth": 150},
    "dcd": {"weight": 0.02, "item_weight": 0.01, "depth": 120},
    "fitnet": {"weight": 0.05},
    "ftd": {"weight": 0.01},
    "htd": {"weight": 0.02, "groups": 6, **EXPERTS},
    "unkd": {"weight": 5.0, "depth": 200, "groups": 3},
    "cd": {"weight": 0.1, "candidates": 100},
    "rd": {"weight": 0.5, "near": 20, "sharpness": 10.0, "start": 5},
    "bd": {"weight": 0.5, "drawn": 20, "candidates": 100},
    "hetcomp": {"base": 1.0, "near": 40, "period": 4},
    "rce-kd": {"weight": 1.0, "near": 30, "drawn": 30, "reach": 80},
    "pckd": {"experts": 6, "weight": 0.05, **EXPERTS},
    "freqd": {"weight": 0.05},
}
SETTINGS["de-rrd"] = {"de": SETTINGS["de"], "rrd": SETTINGS["rrd"]}
SETTINGS["sum"] = {"parts": {"fitnet": SETTINGS["fitnet"], "rrd": SETTINGS["rrd"]}}


class World:
    """A planted log, a teacher, and what students of it come to."""

    def __init__(self) -> None:
        log = planted(users=300, items=200, interactions=7_000, dim=12, seed=4)
        parts = split(log, "ratio", valid=0.0, test=0.2, seed=1)
        self.train, self.held = parts.train, parts.test
        self.early = fit("mf", self.train, dim=48, seed=1, training=COMMON.model_copy(update={"epochs": 4}))
        self.teacher = fit("mf", self.train, dim=48, seed=1, training=COMMON)
        self.plain = self.ndcg(fit("mf", self.train, dim=DIM, seed=1, training=COMMON))

    def ndcg(self, trained) -> float:
        return evaluate(trained.ranker(), self.held, ("ndcg@10",)).means["ndcg@10"]

    def student(self, method, teacher=None, model="mf", **settings) -> float:
        run = {"method": method, "dim": DIM, "seed": 1, "settings": SETTINGS[method] | settings, "training": COMMON}
        return self.ndcg(distill(teacher or self.teacher, model, self.train, **run))


@pytest.fixture(scope="module")
def world():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield World()
    torch.set_num_threads(before)


def test_every_method_of_vectors_or_lists_is_here():
    assert set(SETTINGS) == set(METHODS) - {"plain", "adarec"}  # adarec: tests/methods/test_adarec.py


def test_the_teacher_is_better_than_the_plain_student(world):
    assert world.ndcg(world.teacher) > 1.1 * world.plain


@pytest.mark.parametrize("method", SETTINGS)
def test_the_distilled_student_beats_the_plain_one_of_its_size(method, world):
    assert world.student(method) > 1.05 * world.plain


@pytest.mark.parametrize("model", ["lightgcn", "neumf"])
def test_students_of_other_kinds_learn_from_lists_and_from_vectors(model, world):
    plain = world.ndcg(fit(model, world.train, dim=DIM, seed=1, training=COMMON))
    assert world.student("rrd", model=model, weight=0.2) > 1.05 * plain
    assert world.student("fitnet", model=model) > 1.05 * plain


def test_a_student_learns_from_several_teachers_and_their_trajectories(world):
    other = fit("mf", world.train, dim=48, seed=2, training=COMMON)
    several = rd.ensemble(rd.trajectory(world.early, world.teacher), other)
    assert world.student("hetcomp", several) > 1.05 * world.plain
    assert world.student("rrd", rd.ensemble(world.teacher, other, by="scores")) > 1.05 * world.plain
