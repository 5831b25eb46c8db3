"""What holds a search to its price."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from recdistill.clock import Clock, constant
from recdistill.query import Batch, Query
from recdistill.runtime import Runtime
from recdistill.search.cost import Costs, Shape, counted, published
from recdistill.search.model import SupernetView
from recdistill.search.price import Lagrangian, Price
from recdistill.search.sampling import Architecture
from recdistill.search.space import SPACES

CAUSAL, PUBLISHED = SPACES["causal"], SPACES["published"]
NOBODY = torch.zeros(1, dtype=torch.int64)
BATCH = Batch(Query(NOBODY), NOBODY, NOBODY[:, None])


class Of(nn.Module):
    """As much of a supernet as a price looks at."""

    source = "a test"

    def __init__(self, architecture):
        super().__init__()
        self.architecture = architecture


def view(architecture, step=0):
    return SupernetView(Of(architecture), BATCH.query, architecture.sample(Clock(0, step), paths=1))


def value(term, seen):
    return Runtime(torch.device("cpu")).reduce(term(seen, None, BATCH, Clock()), term.how)


def test_the_official_price_is_that_of_the_sampled_cell_and_its_gradient_that_of_the_soft_one():
    one = Architecture(PUBLISHED, cells=4, temperature=constant(0.7), seed=2)
    seen, costs = view(one), published(PUBLISHED)
    loss = value(Price(costs, chances="sampled"), seen)
    assert loss.item() == pytest.approx(sum(costs.operators[edge[0]] for edge in seen.choice.paths[0]), rel=1e-6)
    (ours,) = torch.autograd.grad(loss, one.alpha, retain_graph=True)
    soft = one._perturbed(one.alpha, "operators", Clock(), 0.7).softmax(-1)
    (expected,) = torch.autograd.grad((soft * torch.tensor(costs.operators)).sum(), one.alpha)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("depth", [False, True])
def test_a_price_is_a_share_of_the_dearest_cells(depth):
    one = Architecture(CAUSAL, cells=3, temperature=constant(1.0), depth=depth)
    costs = counted(CAUSAL, Shape(8, 20, items=500), "macs")
    with torch.no_grad():
        one.alpha.zero_()[..., CAUSAL.index("cau_cnn_5_d1")] = 50.0
        if depth:
            one.depth.zero_()[2] = 50.0
    assert value(Price(costs), view(one)).item() == pytest.approx(1.0)
    with torch.no_grad():
        one.alpha.zero_()[..., CAUSAL.index("none")] = 50.0
    share = value(Price(costs), view(one))
    assert share.item() == pytest.approx(3 * costs.cell / costs.dearest(3, 6))
    (gradient,) = torch.autograd.grad(share, one.alpha)
    assert torch.isfinite(gradient).all()


def test_the_multiplier_rises_while_the_budget_is_broken_and_falls_after():
    one = Architecture(CAUSAL, cells=3, temperature=constant(1.0))
    costs = counted(CAUSAL, Shape(8, 20), "params")
    mean = costs.expected(one.probabilities(), None, 3).item()
    term = Lagrangian(costs, mean / 1.5, penalty=10, step=0.1)
    # v = 1/2: (max(0 + 5, 0)^2 - 0) / 20 = 1.25, then l = 0.05: (5.05^2 - 0.05^2) / 20
    assert value(term, view(one)).item() == pytest.approx(1.25, rel=1e-4)
    assert term.multiplier.item() == pytest.approx(0.05, rel=1e-4)
    assert value(term, view(one)).item() == pytest.approx((5.05**2 - 0.05**2) / 20, rel=1e-4)
    term.eval()
    value(term, view(one))
    assert term.multiplier.item() == pytest.approx(0.10, rel=1e-4), "it learns in training alone"
    slack = Lagrangian(costs, 2 * mean)
    slack.multiplier.fill_(0.02)
    assert value(slack, view(one)).item() == pytest.approx(-(0.02**2) / 20)  # l + r v < 0: nothing pulls
    assert slack.multiplier.item() == 0
    assert "multiplier" in term.state_dict()
    waits = Lagrangian(costs, mean / 1.5, begins=1)
    for epoch, rises in [(0, False), (1, True)]:
        waits(view(one), None, None, Clock(epoch, 3))
        assert (waits.multiplier.item() > 0) == rises


def test_a_budget_is_met_by_descent_and_what_is_likely_stays():
    """With log-likelihood that prefers the dearest operator, alpha comes to rest at the budget."""
    one = Architecture(CAUSAL, cells=1, temperature=constant(1.0))
    costs = Costs("ms", tuple(float(at == 3) for at in range(10)), cell=0.0)  # one operator has a price
    term = Lagrangian(costs, 2.4)  # of 6 edges: 40 %
    optimiser = torch.optim.Adam([one.alpha], lr=0.05)
    for _ in range(600):
        wish = -one.probabilities()[..., 3].log().sum()
        optimiser.zero_grad()
        (wish + value(term, view(one))).backward()
        optimiser.step()
    chance = one.probabilities()[..., 3].detach()
    assert costs.expected(one.probabilities(), None, 1).item() == pytest.approx(2.4, rel=0.05)
    assert chance.mean().item() == pytest.approx(0.4, rel=0.05)
    assert term.multiplier.item() == pytest.approx(6.0, rel=0.25)  # d wish / d cost = 2.5 an edge at 0.4, times 2.4 / 1
    assert math.isfinite(term.multiplier.item())
