"""What distillation is for: on a log with planted structure the distilled student beats the same student alone."""

from __future__ import annotations

import pytest
import torch

from recdistill.data.split import split
from recdistill.data.synthetic import planted
from recdistill.evaluation.evaluate import evaluate
from recdistill.recipes.train import TrainSettings, distill, fit

DIM = 8
EPOCHS = 25
COMMON = TrainSettings(epochs=EPOCHS, batch=512, lr=1e-2, weight_decay=1e-3, device="cpu")
SETTINGS = {
    "de": {"experts": 6, "weight": 0.05, "tau_epochs": EPOCHS, "tau_end": 1e-3},
    "rrd": {"weight": 0.02, "near": 30, "far": 30, "depth": 120, "reach": 60},
    "ir-rrd": {
        "weight": 0.02,
        "near": 30,
        "far": 30,
        "depth": 120,
        "reach": 60,
        "item_weight": 0.01,
        "item_depth": 150,
    },
    "dcd": {"weight": 0.02, "item_weight": 0.01, "depth": 120},
    "fitnet": {"weight": 0.05},
    "ftd": {"weight": 0.01},
    "htd": {"weight": 0.02, "groups": 6, "tau_epochs": EPOCHS, "tau_end": 1e-3},
    "unkd": {"weight": 5.0, "depth": 300, "groups": 3},
    "cd": {"weight": 0.1, "candidates": 100},
    "rd": {"weight": 0.5, "near": 20, "sharpness": 10.0, "start": 5},
}
SETTINGS["de-rrd"] = {"de": SETTINGS["de"], "rrd": SETTINGS["rrd"]}


@pytest.fixture(scope="module")
def measured():
    """NDCG@10 on test of teacher, plain and distilled students."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    parts = split(
        planted(users=400, items=300, interactions=10_000, dim=12, seed=4), "ratio", valid=0.0, test=0.2, seed=1
    )
    train, held = parts.train, parts.test

    def ndcg(trained):
        return evaluate(trained.ranker(), held, ("ndcg@10",)).means["ndcg@10"]

    teacher = fit("mf", train, dim=48, seed=1, training=COMMON)
    found = {"teacher": ndcg(teacher), "plain": ndcg(fit("mf", train, dim=DIM, seed=1, training=COMMON))}
    for method, settings in SETTINGS.items():
        found[method] = ndcg(
            distill(teacher, "mf", train, method=method, dim=DIM, seed=1, settings=settings, training=COMMON)
        )
    torch.set_num_threads(before)
    return found


def test_the_teacher_is_better_than_the_plain_student(measured):
    assert measured["teacher"] > 1.1 * measured["plain"], measured


@pytest.mark.parametrize("method", SETTINGS)
def test_the_distilled_student_beats_the_plain_one_of_its_size(method, measured):
    assert measured[method] > 1.05 * measured["plain"], measured
