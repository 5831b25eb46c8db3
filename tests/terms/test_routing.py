"""Asking only the experts that carry weight changes DE's loss by less than one part in ten thousand."""

from __future__ import annotations

import pytest
import torch

from recdistill.clock import Clock, constant
from recdistill.data.batches import InteractionBatches
from recdistill.data.synthetic import planted
from recdistill.methods import METHODS, Setting
from recdistill.methods.de import DE
from recdistill.models.mf import MF
from recdistill.recipes.train import TrainSettings, fit
from recdistill.runtime import Runtime
from recdistill.settings import parse
from recdistill.teachers.live import Live
from recdistill.terms.base import FromInteractions
from recdistill.terms.expert_match import ExpertMatch
from recdistill.training.optim import optimiser
from recdistill.training.trainer import fit as loop

TAUS = [1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.01, 0.003]
WIDE, NARROW, EXPERTS = 24, 4, 12
DEFAULT = DE().dropped


@pytest.fixture(scope="module", params=[2, 15])
def world(request):
    """A teacher, and a student with experts that were trained a little, or until they fit; a batch of the log."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    log = planted(users=200, items=150, interactions=3_000, dim=8, seed=2)
    training = TrainSettings(epochs=10, batch=256, lr=1e-2, device="cpu")
    teacher = Live(fit("mf", log, dim=WIDE, training=training).model, seen=log.csr())
    student = MF(log.n_users, log.n_items, dim=NARROW, seed=1)
    batches = InteractionBatches(log, size=256, seed=1, device=torch.device("cpu"))
    setting = Setting(student, batches, FromInteractions(), batches.taken, log.n_users, 1, teacher)
    settings = parse(DE, {"experts": EXPERTS, "weight": 0.05, "tau_epochs": request.param, "tau_end": 0.05})
    passes = METHODS["de"].build(settings, setting)
    loop(
        student,
        passes,
        epochs=request.param,
        optimise=lambda parameters: optimiser("adam", parameters, lr=1e-2, weight_decay=1e-3),
        runtime=Runtime(torch.device("cpu")),
    )
    trained = {name: term.state_dict() for name, term in passes[0].objective.named_terms()}
    batch = next(batches.epoch(30))
    with torch.no_grad():
        views = student.view(batch.query), teacher.view(batch.query)
    yield trained, views, batch
    torch.set_num_threads(before)


def losses(world, side, tau, **how):
    """The term's loss summed over the batch, and the gradients of its parameters."""
    trained, views, batch = world
    term = ExpertMatch(
        side, student_dim=NARROW, teacher_dim=WIDE, temperature=constant(tau), experts=EXPERTS, seed=3, **how
    )
    term.load_state_dict(trained["de_users" if side == "user" else "de_items"])
    total = term(*views, batch, Clock(30, 0)).value.sum()
    total.backward()
    return total.item(), {name: p.grad for name, p in term.named_parameters()}


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("side", ["user", "item"])
def test_the_loss_of_the_default_is_the_loss_of_asking_every_expert(world, side, tau):
    whole, gradients = losses(world, side, tau, dropped=0.0)
    routed, of_routed = losses(world, side, tau, dropped=DEFAULT)
    assert abs(routed - whole) < 1e-4 * whole
    for name in ("w1", "b1", "w2", "b2"):
        assert (of_routed[name] - gradients[name]).norm() < 1e-2 * gradients[name].norm(), name


def test_the_default_does_leave_experts_out_when_it_is_cold(world):
    """Otherwise the test above says nothing: at tau = 0.03 most of the weights are under the threshold."""
    trained, (_, teacher), batch = world
    term = ExpertMatch(
        "user", student_dim=NARROW, teacher_dim=WIDE, temperature=constant(0.03), experts=EXPERTS, seed=3
    )
    term.load_state_dict(trained["de_users"])
    weights = term.weights(teacher.entities("user", batch.users.ids), batch.users.ids, Clock(30, 0))
    assert (weights >= DEFAULT / EXPERTS).float().mean() < 0.3


@pytest.mark.parametrize("tau", [1.0, 0.1])
def test_bfloat16_is_near_too(world, tau):
    whole, _ = losses(world, "user", tau, dropped=0.0)
    low, _ = losses(world, "user", tau, dropped=0.0, precision="bfloat16")
    assert abs(low - whole) < 5e-3 * whole
