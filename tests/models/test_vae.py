"""Mult-VAE: encoded rows, a linear decoder, its likelihood and its divergences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.clock import Clock
from recdistill.continual.multinomial import Multinomial
from recdistill.continual.vae import Past, told
from recdistill.data.csr import Csr
from recdistill.errors import UsageError
from recdistill.models.mf import MF
from recdistill.models.vae import VAE
from recdistill.query import Batch, Query

ROWS = Csr.from_pairs([0, 0, 1, 3, 3, 3], [0, 4, 2, 0, 1, 4], 5, 6)


@pytest.fixture
def net():
    return VAE(ROWS, dim=3, bias_std=0.5, seed=4)


def asked(users, key=9):
    ids = torch.tensor(users)
    return Batch(Query(ids, key=key), ids.new_empty(0), ids.new_empty(0, 1))


def naive_mean(net, items):
    x = torch.zeros(6)
    x[items] = 1
    x = x / x.norm() if len(items) else x
    return net.mean @ torch.tanh(x @ net.encoder + net.encoder_bias) + net.mean_bias


def test_the_mean_is_served_with_the_decoders_bias(net):
    net.eval()
    for user in (0, 2, 3):
        z = naive_mean(net, ROWS.row(user).tolist())
        want = net.decoder @ z + net.decoder_bias
        found = net.view(Query(torch.tensor([user]))).scores(torch.arange(6)[None])[0]
        torch.testing.assert_close(found, want)
        arrays = net.arrays()
        np.testing.assert_allclose(arrays["user"][user] @ arrays["item"].T, want.detach(), rtol=1e-5, atol=1e-6)
    assert net.ranker().top_k(np.array([0]), 6).shape == (1, 6)


def test_a_draw_is_a_function_of_its_key_and_the_serving_has_none(net):
    net.train()
    q = Query(torch.tensor([0, 3]), key=5)
    items = torch.arange(6).expand(2, -1)
    one, two = net.view(q).scores(items), net.view(q).scores(items)
    other = net.view(Query(q.row, key=6)).scores(items)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    before = net.arrays()["user"]
    assert net.training
    np.testing.assert_array_equal(net.arrays()["user"], before)
    alone = net.view(Query(q.row[1:], key=5)).scores(items[1:])
    torch.testing.assert_close(alone[0], one[1], msg="whatever else is in the batch")


def test_the_likelihood_is_that_of_the_dense_form(net):
    net.eval()
    term = Multinomial(ROWS, steps=10, most=0.2, over=100)
    b = asked([3, 0])
    found = term(net.view(b.query), None, b, Clock(epoch=1, step=5)).value  # beta = 15 / 100
    for value, user in zip(found, (3, 0), strict=True):
        items = ROWS.row(user).tolist()
        z, log_variance = (each[0] for each in net.posterior(torch.tensor([user])))
        logits = torch.log_softmax(net.decoder @ z + net.decoder_bias, 0)
        divergence = 0.5 * (log_variance.exp() + z.square() - 1 - log_variance).sum()
        want = -logits[items].sum() / len(items) ** 0.5 + 0.15 * divergence
        torch.testing.assert_close(value, want)
    mf = MF(5, 6, dim=2)
    with pytest.raises(UsageError, match="is of Mult-VAE"):
        term(mf.view(b.query), None, b, Clock())


def test_its_past_costs_nothing_where_nothing_changed(net):
    net.eval()
    arrays = net.arrays()
    old = (arrays["user"][:4].copy(), arrays["item"][:5].copy())
    b = asked([4, 0, 3])
    value = Past(old)(net.view(b.query), None, b, Clock()).value
    assert value.shape == (2,), "user 4 was not there"
    assert value.abs().max() < 1e-5
    with torch.no_grad():
        net.decoder += 1.0
        net.decoder[0] -= 3.0
    value = Past(old)(net.view(b.query), None, b, Clock()).value
    assert (value > 1e-4).all()


def test_pseudo_labels_are_read_while_it_learns_and_not_when_it_serves(net):
    begin, items, value = told(ROWS, torch.tensor([0, 0, 2, 1]), torch.tensor([4, 3, 5, -1]), 0.1)
    assert begin.tolist() == [0, 3, 4, 5, 8, 8]
    assert items.tolist() == [0, 3, 4, 2, 5, 0, 1, 4]
    assert value.tolist() == pytest.approx([1, 0.1, 1, 1, 0.1, 1, 1, 1]), "what a user has stays whole"
    net.eval()
    before = net.posterior(torch.arange(5))[0]
    net.told(begin, items, value)
    torch.testing.assert_close(net.posterior(torch.arange(5))[0], before)
    net.train()
    changed = (net.posterior(torch.arange(5))[0] - before).abs().max(1).values > 1e-6
    assert changed.tolist() == [True, False, True, False, False]
