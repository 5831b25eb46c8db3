"""NeuMF: its size, its scores against a plain twin, and its ranker."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.errors import SettingsError, UsageError
from recdistill.models import MODELS
from recdistill.models.neumf import NeuMF, NeuMFSettings
from recdistill.query import Query
from recdistill.settings import parse


def twin(net: NeuMF, user: int, item: int) -> torch.Tensor:
    """One pair, as the sheet writes it: concatenate, Linear, ReLU, ...; Linear on [product ; last]."""
    x = torch.cat([net.user_mlp[user], net.item_mlp[item]])
    for layer in net.layers():
        x = torch.relu(layer(x))
    return net.out(torch.cat([net.user_mf[user] * net.item_mf[item], x]))[0]


def rough(hidden: int = 1, dim: int = 8) -> NeuMF:
    net = NeuMF(5, 7, dim=dim, hidden=hidden, init_std=0.5, seed=3)
    with torch.no_grad():
        for layer in [*net.layers(), net.out]:
            layer.bias.normal_(generator=torch.Generator().manual_seed(1))
    return net


@pytest.mark.parametrize(("dim", "millions"), [(250, 15.33), (125, 7.63), (25, 1.52)])
def test_parameter_counts_are_those_of_table_3_of_the_paper(dim, millions):
    # 2 (5,220 + 25,182) 25 = 1,520,100; hidden 50 * 25 + 25 = 1,275; out 50 + 1 = 51
    net = NeuMF(5220, 25182, dim=dim)
    assert net.n_parameters == 2 * (5220 + 25182) * dim + (2 * dim * dim + dim) + (2 * dim + 1)
    assert round(net.n_parameters / 1e6, 2) == millions


def test_each_further_hidden_layer_halves():
    net = NeuMF(3, 4, dim=16, hidden=3)
    assert [(layer.in_features, layer.out_features) for layer in net.layers()] == [(32, 16), (16, 8), (8, 4)]
    assert net.out.in_features == 16 + 4


def test_too_many_hidden_layers_are_refused():
    with pytest.raises(UsageError, match=r"last of 5 hidden layers of NeuMF .*Allowed: at most 4 hidden layers\."):
        NeuMF(3, 4, dim=8, hidden=5)


def test_initial_values_are_those_of_the_sheet():
    net = NeuMF(4000, 3000, dim=50, seed=1)
    for name in ("user_mf", "item_mf", "user_mlp", "item_mlp"):
        assert getattr(net, name).std().item() == pytest.approx(0.01, rel=0.02)
    first = net.layers()[0].weight
    assert first.abs().max() <= (6 / (100 + 50)) ** 0.5  # Xavier: sqrt(6 / (in + out))
    assert first.abs().max() > 0.99 * (6 / (100 + 50)) ** 0.5
    assert net.out.weight.abs().max() <= (3 / 100) ** 0.5  # Kaiming with a = 1: gain 1, sqrt(3 / in)
    assert net.out.weight.abs().max() > 0.9 * (3 / 100) ** 0.5
    assert not net.layers()[0].bias.any()
    assert not net.out.bias.any()


def test_a_seed_gives_one_model_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    one, same, other = (NeuMF(5, 6, dim=4, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["hidden.0.weight"], other["hidden.0.weight"])


@pytest.mark.parametrize("hidden", [1, 3])
@pytest.mark.parametrize("grad", [True, False])
def test_scores_equal_a_plain_twin_on_every_way_to_them(hidden, grad):
    net = rough(hidden)
    row = torch.tensor([4, 0, 0])
    with torch.set_grad_enabled(grad):
        want = torch.stack([torch.stack([twin(net, int(u), i) for i in range(7)]) for u in row])  # (3, 7)
        few = torch.tensor([[6, 1], [2, 2], [0, 5]])
        torch.testing.assert_close(net.view(Query(row)).scores(few), want.gather(1, few))
        # 3 x 7 items asked of a catalogue of 7: the items' half is made for the whole catalogue
        every = torch.arange(7).repeat(3, 1)
        torch.testing.assert_close(net.view(Query(row)).scores(every), want)
        torch.testing.assert_close(net.view(Query(row)).scores_among(torch.tensor([5, 0])), want[:, [5, 0]])


def test_large_questions_without_gradient_are_answered_in_blocks(monkeypatch):
    net = rough()
    row, items = torch.arange(5), torch.arange(7).repeat(5, 1)
    whole = net.view(Query(row)).scores(items)
    monkeypatch.setattr("recdistill.models.neumf._BLOCK", 100)
    with torch.no_grad():
        torch.testing.assert_close(net.view(Query(row)).scores(items), whole)
        torch.testing.assert_close(net.view(Query(row)).scores_among(torch.arange(7)), whole)


@pytest.mark.parametrize("wide", [False, True])
def test_gradients_equal_those_of_the_twin(wide):
    net = rough(2).double()
    row = torch.tensor([4, 0])
    items = torch.arange(7).repeat(2, 1) if wide else torch.tensor([[6, 1], [2, 2]])
    names = [name for name, _ in net.named_parameters()]
    weight = torch.randn(items.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = torch.autograd.grad((net.view(Query(row)).scores(items) * weight).sum(), list(net.parameters()))
    slow = sum(
        twin(net, int(row[q]), int(items[q, n])) * weight[q, n]
        for q in range(items.shape[0])
        for n in range(items.shape[1])
    )
    for name, one, other in zip(names, got, torch.autograd.grad(slow, list(net.parameters())), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_missing_items_score_minus_infinity_and_unknown_users_nothing():
    view = rough().view(Query(torch.tensor([2, -1])))
    assert view.known().tolist() == [True, False]
    scores = view.scores(torch.tensor([[1, -1], [3, -1]]))
    assert torch.isfinite(scores[:, 0]).all()
    assert scores[1, 0] == 0
    assert (scores[:, 1] == -torch.inf).all()
    assert (view.scores_among(torch.tensor([0, 1]))[1] == 0).all()


def test_a_selected_part_answers_as_the_whole_and_shares_its_users():
    net = rough()
    view = net.view(Query(torch.tensor([1, 3, 4])))
    items = torch.tensor([[0, 6], [2, 2], [5, 1]])
    whole = view.scores(items)
    index = torch.tensor([2, 0])
    torch.testing.assert_close(view.select(index).scores(items[index]), whole[index])
    fresh = net.view(Query(torch.tensor([1, 3, 4]))).select(index)  # selected before anything is computed
    torch.testing.assert_close(fresh.scores(items[index]), whole[index])


def test_entities_by_layer():
    net = rough()
    view, ids = net.view(Query(torch.tensor([0]))), torch.tensor([3, 3, 0])
    assert torch.equal(view.entities("user", ids, 0), net.user_mf[ids])
    assert torch.equal(view.entities("item", ids, 1), net.item_mlp[ids])
    assert torch.equal(view.entities("item", ids), torch.cat([net.item_mf[ids], net.item_mlp[ids]], 1))
    with pytest.raises(UsageError, match=r"no such layer.*got 2.*0 \(the product's table\)"):
        view.entities("user", ids, 2)


@pytest.mark.parametrize("hidden", [1, 2])
def test_the_ranker_orders_items_as_the_view_does(hidden):
    net = rough(hidden)
    users = torch.arange(5)
    with torch.no_grad():
        scores = net.view(Query(users)).scores_among(torch.arange(7))
    ranker = net.ranker()
    items = np.tile(np.arange(7), (5, 1))
    np.testing.assert_allclose(ranker.scores_of(users.numpy(), items), scores.numpy(), rtol=1e-4, atol=1e-5)
    assert (
        ranker.top_k(users.numpy(), 7).tolist()
        == torch.sort(scores, dim=1, descending=True, stable=True).indices.tolist()
    )


def test_it_is_registered_and_its_settings_are_strict():
    entry = MODELS["neumf"]
    assert "1708.05031" in entry.paper
    built = entry.build(parse(NeuMFSettings, {"dim": 4, "hidden": 2}), 3, 4, 5, None)
    assert isinstance(built, NeuMF)
    assert len(built.layers()) == 2
    with pytest.raises(SettingsError, match="hiden"):
        parse(NeuMFSettings, {"hiden": 2})
