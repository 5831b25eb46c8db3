"""FreqD: the graph by hand, the term against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.clock import Clock
from recdistill.data.csr import Csr
from recdistill.data.draws import Taken
from recdistill.errors import UsageError
from recdistill.knowledge.cooccurrence import together
from recdistill.terms.low_pass import LowPass


def dense(graph, n):
    out = torch.zeros(n, n)
    row = torch.repeat_interleave(torch.arange(n), torch.diff(graph.begin))
    out[row, graph.other] = graph.weight
    return out


def test_the_graph_of_a_case_by_hand():
    # rows 0 {a, b}, 1 {a, b}, 2 {b}, 3 {c}: 0 and 1 share two, 2 shares one with each; one neighbour each:
    # 0-1 both ways (1), 2-0 one way (1/2): degrees 1.5, 1, .5, 0
    csr = Csr.from_pairs(np.array([0, 0, 1, 1, 2, 3]), np.array([0, 1, 0, 1, 1, 2]), 4, 3)
    taken = Taken.of(csr, torch.device("cpu"))
    found = dense(together(taken, taken.turned(), 1), 4)
    want = torch.zeros(4, 4)
    want[0, 1] = want[1, 0] = 1 / 1.5**0.5
    want[0, 2] = want[2, 0] = 0.5 / (1.5 * 0.5) ** 0.5
    torch.testing.assert_close(found, want)


def test_turning_twice_changes_nothing_and_once_is_the_transpose(world):
    turned = world.taken.turned()
    assert torch.equal(turned.turned().keys, world.taken.keys)
    for item in range(world.items):
        assert turned.row(item).tolist() == [u for u in range(world.users) if item in world.taken.row(u).tolist()]


@pytest.mark.parametrize("side", ["user", "item"])
def test_the_term_is_the_filtered_distance_of_dense_matrices(world, side):
    term = LowPass(side, world.taken, student_dim=4, teacher_dim=12, neighbours=3, smooth=0.3, seed=1)
    batch = world.batch([5, 2, 5, 9])
    rows = term(world.student.view(batch.query), world.teacher.view(batch.query), batch, Clock())
    student, teacher = (getattr(m, side) for m in (world.student, world.teacher.model))
    n = len(student)
    h = 0.3 * dense(term.graph(), n) + 0.7 * torch.eye(n)
    who = batch.users if side == "user" else batch.items
    apart = (h @ term.layers[0](student) - h @ teacher).square().sum(1)
    torch.testing.assert_close(rows.value, who.share * apart[who.ids], rtol=1e-4, atol=1e-4)


def test_edges_left_out_change_nothing_in_expectation_of_the_filter(world, monkeypatch):
    batch = world.batch(list(range(20)))

    def filtered(keep, steps):
        """(steps, 20, t) what the teacher's vectors are smoothed to."""
        term = LowPass("user", world.taken, student_dim=4, teacher_dim=12, neighbours=3, keep=keep)
        found, smoothed = [], term._smoothed
        monkeypatch.setattr(term, "_smoothed", lambda *words: found.append(smoothed(*words)) or found[-1])
        for step in range(steps):
            term(world.student.view(batch.query), world.teacher.view(batch.query), batch, Clock(0, step))
        return torch.stack(found[::2])  # the student's come after

    (want,), drawn = filtered(1.0, 1), filtered(0.5, 400)
    error = drawn.std(0) / len(drawn) ** 0.5  # of the mean
    assert (error > 0).all(), "edges are left out, others at every step"
    assert ((drawn.mean(0) - want).abs() < 5 * error).all()


def test_settings_out_of_range_are_refused(world):
    with pytest.raises(UsageError, match="FreqD needs neighbours >= 1"):
        LowPass("user", world.taken, student_dim=4, teacher_dim=12, smooth=1.5)
