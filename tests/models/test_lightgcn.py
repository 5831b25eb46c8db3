"""LightGCN: a graph worked by hand, a dense twin, its gradients and its ranker."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.clock import Clock
from recdistill.data.csr import Csr
from recdistill.data.synthetic import random_log
from recdistill.errors import UsageError
from recdistill.models import MODELS
from recdistill.models.lightgcn import LightGCN, LightGCNSettings
from recdistill.models.mf import MF
from recdistill.models.vae import VAE
from recdistill.query import Batch, Query
from recdistill.settings import parse
from recdistill.terms.embedding_l2 import EmbeddingL2


def graph(users: int = 6, items: int = 9, n: int = 20, seed: int = 0) -> Csr:
    rng = np.random.default_rng(seed)
    return Csr.from_pairs(rng.integers(users - 1, size=n), rng.integers(items - 1, size=n), users, items)


def dense(train: Csr, user: torch.Tensor, item: torch.Tensor, layers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Equations 7 and 8 of the paper with a whole matrix."""
    r = torch.zeros(train.n_rows, train.n_columns, dtype=user.dtype)
    for u in range(train.n_rows):
        r[u, torch.from_numpy(train.row(u).astype(np.int64))] = 1
    a = torch.cat(
        [torch.cat([torch.zeros(len(user), len(user)), r], 1), torch.cat([r.T, torch.zeros(len(item), len(item))], 1)]
    )
    d = a.sum(1)
    d = torch.where(d > 0, d**-0.5, 0)
    a = d[:, None] * a * d
    e = [torch.cat([user, item])]
    for _ in range(layers):
        e.append(a.to(user.dtype) @ e[-1])
    mean = torch.stack(e).mean(0)
    return mean[: len(user)], mean[len(user) :]


def test_a_graph_of_two_users_and_three_items_worked_by_hand():
    # u0 - i0, i1;  u1 - i1.  i2 has no edge.  Degrees: u0 2, u1 1; i0 1, i1 2, i2 0.
    # weights: u0-i0 1/sqrt(2*1), u0-i1 1/sqrt(2*2) = 1/2, u1-i1 1/sqrt(1*2).
    # raw (d = 1): u = [1, 2], i = [3, 4, 5].  One layer:
    #   u0' = 3/sqrt2 + 4/2 = 4.121320, u1' = 4/sqrt2 = 2.828427
    #   i0' = 1/sqrt2 = 0.707107, i1' = 1/2 + 2/sqrt2 = 1.914214, i2' = 0
    # mean of raw and layer 1: u = [2.560660, 2.414214], i = [1.853553, 2.957107, 2.5]
    net = LightGCN(Csr.from_pairs([0, 0, 1], [0, 1, 1], 2, 3), dim=1, layers=1)
    with torch.no_grad():
        net.user.copy_(torch.tensor([[1.0], [2.0]]))
        net.item.copy_(torch.tensor([[3.0], [4.0], [5.0]]))
        view = net.view(Query(torch.tensor([0, 1])))
        users, items = (view.entities("user", torch.arange(2)), view.entities("item", torch.arange(3)))
    torch.testing.assert_close(users[:, 0], torch.tensor([2.560660, 2.414214]))
    torch.testing.assert_close(items[:, 0], torch.tensor([1.853553, 2.957107, 2.5]))


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_propagation_equals_a_dense_twin(layers):
    train = graph()
    net = LightGCN(train, dim=4, layers=layers, seed=2)
    got, want = net.propagated(), dense(train, net.user, net.item, layers)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_through_the_graph_equal_those_of_the_dense_twin():
    train = graph()
    net = LightGCN(train, dim=3, seed=1)
    row, items = torch.tensor([0, 3, 3]), torch.tensor([[1, 2], [0, 8], [8, 8]])
    weight = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    got = torch.autograd.grad((net.view(Query(row)).scores(items) * weight).sum(), [net.user, net.item])
    user, item = dense(train, net.user, net.item, 3)
    slow = ((user[row][:, None] * item[items]).sum(2) * weight).sum()
    for one, other in zip(got, torch.autograd.grad(slow, [net.user, net.item]), strict=True):
        torch.testing.assert_close(one, other)


def test_propagation_passes_a_finite_difference_check():
    net = LightGCN(graph(4, 5, 8), dim=2).double()
    leaves = [p.detach().double().requires_grad_() for p in (net.user, net.item)]

    def through(user, item):
        from recdistill.models.lightgcn import _Propagate

        return _Propagate.apply(user, item, net)

    assert torch.autograd.gradcheck(through, leaves)


def test_one_propagation_serves_a_view_and_its_parts(monkeypatch):
    net = LightGCN(graph(), dim=4)
    calls = []
    plain = LightGCN.mean_of_layers
    monkeypatch.setattr(LightGCN, "mean_of_layers", lambda self, *tables: (calls.append(1), plain(self, *tables))[1])
    view = net.view(Query(torch.tensor([0, 1, 2])))
    part = view.select(torch.tensor([1]))
    assert not calls, "a view propagates when it is asked, not before"
    part.scores(torch.tensor([[0]]))
    view.scores(torch.tensor([[0], [1], [2]]))
    view.entities("item", torch.tensor([0]))
    assert len(calls) == 1
    view.entities("user", torch.tensor([0]), 0)
    assert len(calls) == 1


def test_a_frozen_model_propagates_once_until_its_vectors_change(monkeypatch):
    net = LightGCN(graph(), dim=4).requires_grad_(False)
    calls = []
    plain = LightGCN.mean_of_layers
    monkeypatch.setattr(LightGCN, "mean_of_layers", lambda self, *tables: (calls.append(1), plain(self, *tables))[1])
    before = net.arrays()["user"].copy()
    net.view(Query(torch.tensor([0]))).scores(torch.tensor([[0]]))
    assert len(calls) == 1
    net.load_state_dict({name: value + 1 for name, value in net.state_dict().items()})
    after = net.arrays()["user"]
    assert len(calls) == 2
    assert not np.allclose(before, after)


def test_what_is_evaluated_follows_training():
    net = LightGCN(graph(), dim=4)
    before = net.arrays()["item"].copy()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.1, fused=True)
    net.view(Query(torch.tensor([0]))).scores(torch.tensor([[0]])).sum().backward()
    optimiser.step()
    assert not np.allclose(before, net.arrays()["item"])


def test_layer_0_is_the_raw_table_and_others_are_refused():
    net = LightGCN(graph(), dim=4)
    view, ids = net.view(Query(torch.tensor([0]))), torch.tensor([5, 0])
    assert torch.equal(view.entities("user", ids, 0), net.user[ids])
    assert torch.equal(view.entities("item", ids, 0), net.item[ids])
    with pytest.raises(UsageError, match=r"no such layer.*got 1"):
        view.entities("item", ids, 1)


@pytest.mark.parametrize("layer", [1, 5, -1])
def test_models_of_one_table_refuse_layers_that_are_not_there(layer):
    ids, query = torch.tensor([0, 1]), Query(torch.tensor([0]))
    for net in (MF(6, 9, dim=4), VAE(graph(), dim=4)):
        net.eval()
        view = net.view(query)
        assert torch.equal(view.entities("item", ids, 0), view.entities("item", ids))
        with pytest.raises(UsageError, match=rf"The .* has no such layer of vectors; got {layer}. Allowed: 'served'"):
            view.entities("item", ids, layer)


def test_the_state_holds_the_raw_vectors_alone():
    net = LightGCN(graph(), dim=4)
    assert sorted(net.state_dict()) == ["item", "user"]
    assert net.n_parameters == (6 + 9) * 4


def test_the_ranker_serves_propagated_vectors():
    net = LightGCN(graph(), dim=4, seed=4)
    with torch.no_grad():
        scores = net.view(Query(torch.arange(6))).scores_among(torch.arange(9))
    assert (
        net.ranker().top_k(np.arange(6), 9).tolist()
        == torch.sort(scores, dim=1, descending=True, stable=True).indices.tolist()
    )


def test_threads_do_not_change_a_propagation():
    net = LightGCN(graph(300, 200, 4000), dim=16).requires_grad_(False)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(net.mean_of_layers(net.user, net.item))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_initial_vectors():
    train = Csr.empty(3000, 2000)
    assert LightGCN(train, dim=32).user.std().item() == pytest.approx(0.1, rel=0.02)
    xavier = LightGCN(train, dim=32, init="xavier").user
    assert xavier.abs().max().item() == pytest.approx((6 / 3032) ** 0.5, rel=0.001)


def test_no_edge_at_all_leaves_a_share_of_the_raw_vectors():
    net = LightGCN(Csr.empty(2, 3), dim=2, layers=3)
    torch.testing.assert_close(net.propagated()[0], net.user / 4)


def test_it_is_registered():
    built = MODELS["lightgcn"].build(parse(LightGCNSettings, {"dim": 4, "layers": 2}), 6, 9, 1, random_log(6, 9, 20))
    assert isinstance(built, LightGCN)
    assert built.layers == 2


def test_the_l2_term_counts_every_raw_vector_of_an_interaction():
    net = LightGCN(graph(), dim=1)
    with torch.no_grad():
        net.user.copy_(torch.arange(6.0)[:, None])
        net.item.copy_(torch.arange(9.0)[:, None])
    batch = Batch(Query(torch.tensor([2, 2])), torch.tensor([3, 1]), torch.tensor([[4, 0], [5, 8]]))
    rows = EmbeddingL2()(net.view(batch.query), None, batch, Clock())
    # (4 + 9 + 16 + 0) / 2 and (4 + 1 + 25 + 64) / 2
    assert rows.value.tolist() == [14.5, 47.0]
    assert rows.of == "queries"
