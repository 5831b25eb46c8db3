"""LWC-KD's terms and the personal weights."""

from __future__ import annotations

import pytest
import torch

from recdistill.clock import Clock
from recdistill.data.csr import Csr
from recdistill.models.mf import MF
from recdistill.query import Batch, Query
from recdistill.terms.graph_contrast import Clusters, GraphContrast, Personal

GRAPH = Csr.from_pairs([0, 0, 1, 3], [1, 2, 0, 2], 4, 3)  # user 2 had nothing; the block has 6 users and 5 items


@pytest.fixture
def net():
    return MF(6, 5, dim=3, init_std=1.0, seed=2)


@pytest.fixture
def old():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(4))


BATCH = Batch(Query(torch.tensor([5, 3, 0, 2, 0])), torch.tensor([4, 2, 1, 0, 1]), torch.zeros(5, 1, dtype=torch.int64))


def naive(old, table, neighbours, tau):
    scores = torch.log_softmax(old @ table.T / tau, 0)
    return -scores[neighbours].mean()


def test_the_users_of_before_are_compared_over_the_items_of_before(net, old):
    term = GraphContrast(old, GRAPH, side="user", other="item", temperature=5)
    found = term(net.view(BATCH.query), None, BATCH, Clock())
    want = torch.stack([naive(old[u], net.item[:3], GRAPH.row(u).tolist(), 5) for u in (0, 3)])
    torch.testing.assert_close(found.value, want, msg="5 is new, 2 had no neighbour")
    found.value.sum().backward()
    assert net.user.grad is None or net.user.grad.abs().max() == 0, "the past does not move"
    assert net.item.grad[3:].abs().max() == 0, "the softmax is over items of before"


def test_the_items_of_a_batch_are_its_positives(net):
    old = torch.randn(3, 3, generator=torch.Generator().manual_seed(5))
    term = GraphContrast(old, GRAPH.transposed(), side="item", other="user", temperature=2)
    found = term(net.view(BATCH.query), None, BATCH, Clock())
    want = torch.stack([naive(old[i], net.user[:4], GRAPH.transposed().row(i).tolist(), 2) for i in (0, 1, 2)])
    torch.testing.assert_close(found.value, want)
    assert found.of == "items"


@pytest.mark.parametrize(("side", "other"), [("user", "item"), ("item", "user")])
def test_only_whom_the_batch_holds_is_moved_where_that_is_asked_and_values_are_the_same(net, side, other):
    graph = GRAPH if side == "user" else GRAPH.transposed()
    old = torch.randn(graph.n_rows, 3, generator=torch.Generator().manual_seed(5))
    few = Batch(Query(torch.tensor([0, 3])), torch.tensor([2, 1]), torch.tensor([[1], [2]]))
    values, gradients = {}, {}
    for reach in ("everybody", "batch"):
        net.zero_grad(set_to_none=True)
        term = GraphContrast(old, graph, side=side, other=other, reach=reach)
        values[reach] = term(net.view(few.query), None, few, Clock()).value
        values[reach].sum().backward()
        table = net.item if other == "item" else net.user
        moved = (table.grad.abs().sum(1) > 0).tolist()
        held = {"item": [1, 2], "user": [0, 3]}[other]
        rows = range(graph.n_columns) if reach == "everybody" else held
        assert [row for row, one in enumerate(moved) if one] == list(rows)
        gradients[reach] = table.grad[held]
    torch.testing.assert_close(values["batch"], values["everybody"])
    torch.testing.assert_close(gradients["batch"], gradients["everybody"])


def test_a_part_of_the_anchors_estimates_the_sum_of_all(net, old):
    whole = GraphContrast(old, GRAPH, side="user", other="item")(net.view(BATCH.query), None, BATCH, Clock())
    part = GraphContrast(old, GRAPH, side="user", other="item", anchors=1)
    sums = [part(net.view(BATCH.query), None, BATCH, Clock(0, step)).value.sum().item() for step in range(40)]
    assert min(sums) < whole.value.sum().item() < max(sums)
    assert len({round(value, 5) for value in sums}) == 2, "twice the one anchor, or twice the other"


def test_personal_weights_have_mean_1_weigh_row_by_row_and_learn(net, old):
    personal = Personal(old, clusters=3, seed=0)
    ids = torch.tensor([0, 3])
    weight = personal(old[ids], net.user[ids])
    assert weight.mean().item() == pytest.approx(1)
    plain = GraphContrast(old, GRAPH, side="user", other="item")(net.view(BATCH.query), None, BATCH, Clock()).value
    term = GraphContrast(old, GRAPH, side="user", other="item", personal=personal)
    found = term(net.view(BATCH.query), None, BATCH, Clock()).value
    torch.testing.assert_close(found, plain * weight)
    found.sum().backward()
    grads = [p.grad.abs().sum().item() for p in personal.parameters()]
    assert min(grads[1:-1]) > 0, "the published product of (B,) and (B, 1) gives none"
    assert list(term.parameters()) == [], "the clusters' term owns them"
    assert len(list(Clusters(personal).parameters())) == 5


def test_clusters_are_sharpened(net, old):
    personal = Personal(old, clusters=3, seed=0)
    term = Clusters(personal)
    optimiser = torch.optim.SGD(term.parameters(), lr=0.5)
    values = []
    for _ in range(20):
        value = term(net.view(BATCH.query), None, BATCH, Clock()).value
        assert (value > -1e-6).all()
        optimiser.zero_grad()
        value.sum().backward()
        optimiser.step()
        values.append(personal.assigned(net.user.detach()).max(1).values.mean().item())
    assert values[-1] > values[0]
