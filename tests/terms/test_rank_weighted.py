"""RD's term against the formula, a user and an item at a time."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill import rng
from recdistill.clock import Clock
from recdistill.data.draws import outside
from recdistill.errors import UsageError
from recdistill.terms.rank_weighted import RankWeighted


def make(world, **changes):
    return RankWeighted(world.taken, world.users, **({"near": 4, "sampled": 12, "start": 2, "seed": 3} | changes))


def run(term, world, users, epoch=0):
    batch = world.batch(users)
    return term(world.student.view(batch.query), world.teacher.view(batch.query), batch, Clock(epoch))


def naive(world, user, *, epoch, k=4, normalise=True):
    """Equations 6 to 10, one user."""
    items = world.teacher.ranked(torch.tensor([user]), k)[0].tolist()
    score = (world.student.item @ world.student.user[user]).tolist()
    w = [math.exp(-r) for r in range(1, k + 1)]
    w = [each / sum(w) for each in w]
    if epoch >= 2:
        key = rng.key(3, "rank samples", epoch)
        drawn = outside(key, torch.tensor([user]), 12, world.taken, distinct=True)[0].tolist()
        for r, item in enumerate(items, start=1):
            above = sum(score[other] > score[item] for other in drawn)
            rank = 1 + math.floor((world.items - 1) * above / 12)
            w[r - 1] *= math.tanh(max(0.1 * (rank - r), 0))
        w = [each / sum(w) for each in w] if normalise else w
    return -sum(each * math.log(1 / (1 + math.exp(-score[i]))) for each, i in zip(w, items, strict=True))


@pytest.mark.parametrize("epoch", [0, 1, 2, 5])
@pytest.mark.parametrize("normalise", ["one", "none"])
def test_users_equal_the_formula_each_user_once(world, epoch, normalise):
    rows = run(make(world, normalise=normalise), world, [7, 3, 7], epoch)
    assert rows.of == "users"
    want = [naive(world, user, epoch=epoch, normalise=normalise == "one") for user in (3, 7)]
    assert rows.value.tolist() == pytest.approx(want, rel=1e-4)


def test_weights_carry_no_gradient(world):
    rows = run(make(world), world, [1, 2], 4)
    (whole,) = torch.autograd.grad(rows.value.sum(), world.student.user)
    # d/ds of -w log sigmoid(s) is -w (1 - sigmoid(s)), so the sum of the rows' weights bounds it
    assert torch.isfinite(whole).all()
    assert (whole[[1, 2]].abs().sum(1) > 0).all()
    assert whole[3:].abs().sum() == 0


@pytest.mark.parametrize("change", [{"near": 0}, {"sampled": 0}, {"sharpness": 0.0}, {"steep": -1.0}])
def test_settings_out_of_range_are_refused(world, change):
    with pytest.raises(UsageError, match="RD needs near >= 1, sampled >= 1, sharpness > 0 and steep > 0"):
        make(world, **change)
