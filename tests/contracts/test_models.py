"""What every registered model promises, whichever it is. A new model is tested by being registered."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.data.csr import Csr
from recdistill.data.interactions import Interactions
from recdistill.errors import TrainingError
from recdistill.ids import IdTable
from recdistill.knowledge.view import Kind
from recdistill.models import MODELS
from recdistill.query import Query
from recdistill.recipes.train import TrainSettings, fit
from recdistill.serve.service import Service
from recdistill.settings import parse
from recdistill.teachers.joined import joined
from recdistill.teachers.live import Live
from recdistill.terms.base import BASE_LOSSES
from recdistill.training import checkpoint
from recdistill.training.stop import Stop
from recdistill.training.watch import Report

pytestmark = pytest.mark.parametrize("name", MODELS)
QUICK = TrainSettings(epochs=1, batch=32, device="cpu")
USERS, ITEMS, NOTHING, UNSEEN = 24, 37, 5, (0, 36)


def everything(net):
    """(U, I) scores by the view."""
    rows = torch.arange(net.n_users)
    with torch.no_grad():
        return net.view(Query(rows)).scores(torch.arange(net.n_items).repeat(net.n_users, 1))


def test_default_settings_are_accepted_and_survive_json(name):
    settings = parse(MODELS[name].settings, {})
    assert type(settings).model_validate_json(settings.model_dump_json()) == settings
    assert MODELS[name].paper


@pytest.mark.parametrize("grad", [True, False])
def test_view_and_ranker_give_the_same_scores(name, built, grad):
    net = built(name)
    users, items = torch.tensor([0, 23, 5, 5]), torch.tensor([[0, 36, 7], [1, 1, 2], [9, 8, 7], [7, 8, 9]])
    with torch.set_grad_enabled(grad):
        found = net.view(Query(users)).scores(items)
        shared = net.view(Query(users)).scores_among(items[0])
    assert found.requires_grad is grad
    ranker = net.ranker()
    np.testing.assert_allclose(found.detach(), ranker.scores_of(users.numpy(), items.numpy()), rtol=1e-5, atol=1e-5)
    same = ranker.scores_of(users.numpy(), np.tile(items[0].numpy(), (4, 1)))
    np.testing.assert_allclose(shared.detach(), same, rtol=1e-5, atol=1e-5)


def test_vectors_whose_products_are_scores_are_those_of_its_scores(name, built):
    net = built(name)
    query = Query(torch.tensor([3, 0, 9, -1]))
    scores = net.view(query).scores_among(torch.arange(net.n_items)).detach()
    teacher = Live(net, seen=Csr.empty(net.n_users, net.n_items))
    for who in (net, teacher, joined(teacher)):
        linear = who.view(query).linear()
        assert (linear is None) == (name == "neumf")  # its scores are a network's
        if linear is not None:
            torch.testing.assert_close((linear.vectors @ linear.items.T).detach(), scores)


def test_a_part_of_a_view_answers_like_the_whole(name, built):
    net = built(name)
    rows, index = torch.tensor([3, 0, 9, 17]), torch.tensor([2, 2, 0])
    items = torch.tensor([[4, 5], [6, 7], [8, 9], [1, 2]])
    view = net.view(Query(rows))
    part = view.select(index)
    torch.testing.assert_close(part.scores(items[index]), view.scores(items)[index])
    torch.testing.assert_close(part.scores_among(items[0]), view.scores_among(items[0])[index])
    assert part.known().tolist() == [True] * 3


def test_queries_in_another_order_are_answered_in_that_order(name, built):
    net = built(name)
    order = torch.tensor([3, 1, 0, 2])
    rows, items = torch.tensor([3, 0, 9, 17]), torch.tensor([[4, 5], [6, 7], [8, 9], [1, 2]])
    torch.testing.assert_close(
        net.view(Query(rows[order])).scores(items[order]), net.view(Query(rows)).scores(items)[order]
    )


def test_nobody_and_nothing_have_their_answers(name, built):
    net = built(name)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            view = net.view(Query(torch.tensor([-1, 2])))
            scores = view.scores(torch.tensor([[1, 2], [3, -1]]))
        assert view.known().tolist() == [False, True]
        assert scores[0].tolist() == [0, 0], "an unknown user prefers nothing"
        assert scores[1, 1].item() == -torch.inf, "no item is below every item"
        assert torch.isfinite(scores[1, 0])
    empty = net.view(Query(torch.zeros(0, dtype=torch.int64)))
    assert empty.scores(torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3)


def test_vectors_are_rows_of_one_width_and_those_of_an_inner_product_are_served(name, built):
    net = built(name)
    if Kind.VECTORS not in net.provides:
        pytest.skip(f"{name} has no vectors")
    view = net.view(Query(torch.tensor([0])))
    user, item = (view.entities(side, torch.tensor([4, 2, 4])) for side in ("user", "item"))
    assert user.shape == item.shape
    assert torch.equal(user[0], user[2])
    if net.kind == "vectors":
        arrays = net.arrays()
        np.testing.assert_allclose(user.detach(), arrays["user"][[4, 2, 4]], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(item.detach(), arrays["item"][[4, 2, 4]], rtol=1e-5, atol=1e-6)


def test_every_parameter_gets_a_gradient_from_the_scores(name, built):
    net = built(name).train()
    rows = torch.arange(net.n_users)
    net.view(Query(rows)).scores(torch.arange(net.n_items).repeat(net.n_users, 1)).square().sum().backward()
    for parameter, p in net.named_parameters():
        assert p.grad is not None, parameter
        assert p.grad.to_dense().abs().sum() > 0, parameter


def test_lists_are_the_scores_in_order_without_what_is_excluded(name, built, log):
    net = built(name)
    users = np.arange(USERS)
    lists = net.ranker().top_k(users, 10, log.csr())
    assert lists.shape == (USERS, 10)
    assert (lists >= 0).all()
    assert not log.csr().contains(users[:, None], lists).any()
    scores = everything(net).numpy()
    for u in users:
        free = np.setdiff1d(np.arange(ITEMS), log.csr().row(u))
        best = np.sort(scores[u, free])[::-1][:10]
        np.testing.assert_allclose(scores[u, lists[u]], best, rtol=1e-5, atol=1e-5)


def test_more_than_the_catalogue_ends_in_nothing(name, built, log):
    lists = built(name).ranker().top_k(np.array([NOTHING, 0]), 100, log.csr())
    assert sorted(lists[0][lists[0] >= 0].tolist()) == list(range(ITEMS)), "who has nothing is offered everything"
    assert sorted(lists[1][lists[1] >= 0].tolist()) == sorted(set(range(ITEMS)) - set(log.csr().row(0).tolist()))
    assert (lists[:, ITEMS:] == -1).all()


def test_a_checkpoint_restores_every_score(name, built, tmp_path):
    one, other = built(name, seed=1), built(name, seed=2)
    assert not torch.equal(everything(one), everything(other))
    common = {"run": "r", "optimisers": {}, "stop": Stop(), "report": Report(1)}
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, place=(0, 0, {}, 0.0), modules={"model": one}, **common)
    assert checkpoint.load(path, modules={"model": other}, **common) is not None
    assert torch.equal(everything(one), everything(other))


def test_a_bundle_serves_the_same_top_10_by_external_ids(name, built, log, saved, tmp_path):
    net = built(name)
    manifest = saved(net, tmp_path / "bundle", name)
    assert set(manifest.files["tensors.safetensors"].tensors) == set(net.arrays())
    service = Service.from_bundle(tmp_path / "bundle", verify="full")
    lists = net.ranker().top_k(np.arange(USERS), 10, log.csr())
    answer = service.recommend([f"u{u}" for u in range(USERS)], k=10)
    for u, (asked, items) in enumerate(answer):
        assert asked == f"u{u}"
        assert [item.id for item in items] == [f"i{i}" for i in lists[u]]
        np.testing.assert_allclose([item.score for item in items], everything(net)[u, lists[u]], rtol=1e-4, atol=1e-5)


def test_one_user_and_one_item_are_a_catalogue(name):
    entry = MODELS[name]
    log = Interactions(IdTable.from_ids(["u"]), IdTable.from_ids(["i"]), np.zeros(1, np.int32), np.zeros(1, np.int32))
    net = entry.build(parse(entry.settings, {"dim": 4}), 1, 1, 0, log)
    assert net.ranker().top_k(np.array([0]), 3).tolist() == [[0, -1, -1]]
    assert net.ranker().top_k(np.array([0]), 3, log.csr()).tolist() == [[-1, -1, -1]]
    assert net.view(Query(torch.tensor([0]))).scores(torch.tensor([[0]])).shape == (1, 1)
    nothing = (
        "no history of at least 2 items" if net.ordered else "has all 1 items, so there is nothing to compare with"
    )
    with pytest.raises(TrainingError, match=nothing):
        fit(name, log, dim=4, training=QUICK)


def test_cold_users_and_items_train_and_are_served(name, log):
    trained = fit(name, log, dim=4, training=QUICK)
    lists = trained.ranker().top_k(np.array([NOTHING]), ITEMS, log.csr())
    assert sorted(lists[0].tolist()) == list(range(ITEMS))
    scores = everything(trained.model)
    assert torch.isfinite(scores).all()
    assert torch.isfinite(scores[:, list(UNSEEN)]).all()


def test_a_seed_makes_one_model_and_touches_no_other_chance(name, log, built):
    before = torch.get_rng_state()
    one, same, other = (built(name, seed=s, stirred=False).state_dict() for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
    two = [fit(name, log, dim=4, training=QUICK, seed=4).model.state_dict() for _ in range(2)]
    assert all(torch.equal(two[0][key], two[1][key]) for key in two[0])


def test_parameters_are_counted(name, built):
    net = built(name)
    assert net.n_parameters == sum(p.numel() for p in net.parameters())
    assert net.n_parameters >= (ITEMS if net.ordered else USERS + ITEMS) * 6
    if not net.ordered:  # whose users are computed from their histories
        assert sum(a.size for a in net.arrays().values()) == net.n_parameters, "what is served is what was counted"


@pytest.mark.parametrize("loss", BASE_LOSSES)
def test_every_base_loss_falls(name, log, loss):
    # no dropout; one stage, for losses of two kinds of text cannot be compared
    still = {key: 0 for key in ("dropout", "cloze") if key in MODELS[name].settings.model_fields}
    training = TrainSettings(epochs=12, batch=16, lr=0.03, weight_decay=0, loss=loss, negatives=2, device="cpu")
    if MODELS[name].settings.model_fields.keys() & {"length"}:  # these few histories make few steps
        training = training.model_copy(update={"epochs": 30, "batch": 8, "lr": 0.04})
    history = fit(name, log, dim=8, settings=still, training=training).report.history
    assert np.isfinite([record.losses["base"] for record in history]).all()
    assert history[-1].losses["base"] < 0.8 * history[0].losses["base"]
