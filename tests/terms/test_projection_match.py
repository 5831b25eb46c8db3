"""FitNet's term."""

from __future__ import annotations

import pytest
import torch

from recdistill.clock import Clock
from recdistill.errors import UsageError
from recdistill.query import Batch, Query
from recdistill.terms.projection_match import ProjectionMatch


def make(side="user", **changes):
    return ProjectionMatch(side, **({"student_dim": 4, "teacher_dim": 12, "rows": 20, "seed": 3} | changes))


def run(term, world, batch, step=0):
    return term(world.student.view(batch.query), world.teacher.view(batch.query), batch, Clock(0, step))


def test_a_case_by_hand(world):
    # x = (1, 0, 0, 0), P x = 2 x_1 everywhere + 1 = 3; t = 1: twelve times (1 - 3)^2
    term, user = make(), torch.tensor([4])
    with torch.no_grad():
        world.student.user[4] = torch.tensor([1.0, 0.0, 0.0, 0.0])
        world.teacher.model.user[4] = 1.0
        term.layers[0].weight.zero_()
        term.layers[0].weight[:, 0] = 2.0
        term.layers[0].bias.fill_(1.0)
    assert run(term, world, Batch(Query(user), user, user[:, None])).value.tolist() == pytest.approx([48.0])


@pytest.mark.parametrize("hidden", [0, 7])
def test_gradients_pass_a_finite_difference_check(world, hidden):
    term = make(hidden=hidden).double()
    target = torch.randn(3, 12, dtype=torch.float64)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    class Of:
        def __init__(self, vectors):
            self.vectors = vectors

        def has(self, side, ids):
            return None

        def entities(self, side, ids, layer="served"):
            return self.vectors

    batch = world.batch([1, 2, 3])
    assert torch.autograd.gradcheck(lambda x: term(Of(x), Of(target), batch, Clock()).value, (x,))


def test_an_item_counts_half_for_each_role_and_lengths_may_be_left_out(world):
    batch = Batch(Query(torch.tensor([0, 1])), torch.tensor([7, 3]), torch.tensor([[3], [8]]))
    rows = run(make("item"), world, batch)
    alone = run(make("item"), world, Batch(Query(torch.tensor([0])), torch.tensor([3]), torch.tensor([[3]])))
    assert rows.of == "items"
    torch.testing.assert_close(rows.value[0], alone.value[0])  # 3, positive and negative: whole
    term = make("item", lengths="unit")
    before = run(term, world, batch).value
    with torch.no_grad():
        world.teacher.model.item.mul_(3.0)
    torch.testing.assert_close(run(term, world, batch).value, before)
    assert (before <= 4.0).all()


def test_uniform_entities_are_drawn_from_all_rows_anew_at_every_step(world):
    term, batch = make(entities="uniform"), world.batch([1] * 300)
    one, other = (run(term, world, batch, step).value for step in (0, 1))
    assert len(one) == len(other) == 20  # of 300 draws everybody is one
    assert len(run(make(entities="uniform"), world, world.batch([1, 1])).value) <= 2


def test_a_negative_width_is_refused():
    with pytest.raises(UsageError, match="FitNet needs hidden >= 0; got -1"):
        make(hidden=-1)
