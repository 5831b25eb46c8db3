"""Optimisers: the row-wise one is Adam for every row that is touched, and leaves the others alone."""

from __future__ import annotations

import pytest
import torch

from recdistill.errors import UnknownName
from recdistill.knowledge.table import Table
from recdistill.models.mf import MF
from recdistill.models.neumf import NeuMF
from recdistill.query import Query
from recdistill.training import optim
from recdistill.training.optim import OPTIMISERS, RowwiseAdam, optimiser


def table(rows: int = 6, dim: int = 4, seed: int = 0) -> Table:
    return Table(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)))


def rows_of(ids: list[int], values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor([ids]), values, size, check_invariants=True)


def steps(n: int, dim: int = 4) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return [torch.randn(3, dim, generator=g) for _ in range(n)]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("block", [4, 1 << 16])
def test_a_row_that_is_touched_moves_as_adam_moves_it(monkeypatch, weight_decay, block):
    monkeypatch.setattr(optim, "_BLOCK", block)
    ours, ids = table(), [4, 0, 2]
    theirs = torch.nn.Parameter(ours.detach()[ids].clone())  # Adam over these three rows alone
    one = optimiser("rowwise", [ours], lr=0.05, weight_decay=weight_decay)
    other = torch.optim.Adam([theirs], lr=0.05, weight_decay=weight_decay)
    for g in steps(8):
        ours.grad, theirs.grad = rows_of(ids, g, (6, 4)), g.clone()
        one.step()
        other.step()
    torch.testing.assert_close(ours.detach()[ids], theirs.detach())


def test_a_row_s_clock_ticks_only_when_it_is_touched():
    # row 0 at every step; row 1 at steps 2 and 5: it must move as under an Adam that took two steps in all
    ours = table(2)
    lone = torch.nn.Parameter(ours.detach()[1:].clone())
    one, other = (
        optimiser("rowwise", [ours], lr=0.1, weight_decay=0.01),
        torch.optim.Adam([lone], lr=0.1, weight_decay=0.01),
    )
    for step, g in enumerate(steps(8)):
        touched = [0, 1] if step in {2, 5} else [0]
        ours.grad = rows_of(touched, g[: len(touched)].clone(), (2, 4))
        one.step()
        if 1 in touched:
            lone.grad = g[1:2].clone()
            other.step()
    torch.testing.assert_close(ours.detach()[1:], lone.detach())


def test_untouched_rows_keep_every_bit():
    ours = table()
    before = ours.detach().clone()
    one = optimiser("rowwise", [ours], lr=0.1, weight_decay=0.5)
    for g in steps(3):
        ours.grad = rows_of([1, 3, 4], g, (6, 4))
        one.step()
    assert torch.equal(ours.detach()[[0, 2, 5]], before[[0, 2, 5]])
    assert not torch.isclose(ours.detach()[[1, 3, 4]], before[[1, 3, 4]]).any()


def test_a_first_step_has_the_length_of_the_learning_rate_however_late():
    # torch.optim.SparseAdam corrects by the table's clock and would move a late row 3.2 times as far
    ours = table(2)
    one = optimiser("rowwise", [ours], lr=0.01, weight_decay=0.0)
    for g in steps(200):
        ours.grad = rows_of([0], g[:1], (2, 4))
        one.step()
    before = ours.detach()[1].clone()
    ours.grad = rows_of([1], torch.full((1, 4), -3.0), (2, 4))
    one.step()
    torch.testing.assert_close(ours.detach()[1], before + 0.01)


def test_repeated_rows_are_added_up_first():
    one, other = table(), table()
    for t, ids, g in (
        (one, [2, 2, 0], torch.tensor([[1.0] * 4, [2.0] * 4, [5.0] * 4])),
        (other, [0, 2], torch.tensor([[5.0] * 4, [3.0] * 4])),
    ):
        t.grad = rows_of(ids, g, (6, 4))
        optimiser("rowwise", [t], lr=0.1, weight_decay=0.1).step()
    assert torch.equal(one, other)


def test_whole_gradients_get_plain_adam():
    ours, theirs = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    one, other = (
        optimiser("rowwise", [ours], lr=0.1, weight_decay=0.1),
        torch.optim.Adam([theirs], lr=0.1, weight_decay=0.1),
    )
    for g in steps(5):
        ours.grad, theirs.grad = g[:, 0].clone(), g[:, 0].clone()
        one.step()
        other.step()
    torch.testing.assert_close(ours, theirs)


def test_a_table_whose_gradient_comes_whole_is_a_table_whose_every_row_is_touched():
    ours, theirs = table(), torch.nn.Parameter(table().detach().clone())
    one, other = (
        optimiser("rowwise", [ours], lr=0.1, weight_decay=0.1),
        torch.optim.Adam([theirs], lr=0.1, weight_decay=0.1),
    )
    for g in steps(4):
        whole = torch.cat([g, -g])
        ours.grad, theirs.grad = whole.clone(), whole.clone()
        one.step()
        other.step()
    torch.testing.assert_close(ours.detach(), theirs.detach())


def test_naming_an_optimiser_tells_the_tables_what_gradients_to_give():
    ours = table()
    optimiser("rowwise", [ours], lr=0.1, weight_decay=0.0)
    assert ours.by_rows
    optimiser("adam", [ours], lr=0.1, weight_decay=0.0)
    assert not ours.by_rows


@pytest.mark.parametrize("build", [lambda: MF(30, 40, dim=3, seed=1), lambda: NeuMF(30, 40, dim=4, hidden=2, seed=1)])
def test_a_model_trains_by_rows_from_end_to_end(build):
    model = build()
    one = optimiser("rowwise", model.parameters(), lr=0.05, weight_decay=0.0)
    row, items = torch.tensor([3, 7, 3, 9]), torch.tensor([[1, 5], [2, 1], [0, 8], [5, 6]])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = []
    for _ in range(30):
        scores = model.view(Query(row)).scores(items)
        loss = torch.nn.functional.softplus(scores[:, 1] - scores[:, 0]).sum()
        one.zero_grad()
        loss.backward()
        one.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    touched = {"user": [3, 7, 9], "item": [0, 1, 2, 5, 6, 8]}
    for name, p in model.named_parameters():
        side = name.split("_")[0]
        if side in touched:
            moved = (p.detach() != before[name]).any(1).nonzero()[:, 0].tolist()
            assert moved == touched[side], name


def test_its_state_survives_being_saved_and_loaded():
    def run(parts: list[int], *, keep: bool) -> torch.Tensor:
        ours = table()
        one = optimiser("rowwise", [ours], lr=0.05, weight_decay=0.1)
        for at, g in enumerate(steps(6)):
            if at in parts and keep:
                state, values = one.state_dict(), ours.detach().clone()
                ours = Table(values)
                one = optimiser("rowwise", [ours], lr=0.05, weight_decay=0.1)
                one.load_state_dict({"state": state["state"], "param_groups": one.state_dict()["param_groups"]})
            ours.grad = rows_of([0, 3, at % 3 + 1] if at % 3 != 2 else [0, 2, 5], g, (6, 4))
            one.step()
        return ours.detach()

    assert torch.equal(run([2, 4], keep=True), run([], keep=False))


def test_adam_is_torch_s_with_coupled_decay():
    made = optimiser("adam", [table()], lr=0.1, weight_decay=0.2)
    assert type(made) is torch.optim.Adam
    assert made.defaults["weight_decay"] == 0.2
    assert not made.defaults["decoupled_weight_decay"]


def test_unknown_names_get_a_neighbour():
    with pytest.raises(UnknownName, match=r"Unknown optimiser 'rowise'\. Did you mean 'rowwise'\?"):
        optimiser("rowise", [table()], lr=0.1, weight_decay=0.0)
    assert "rowwise" in OPTIMISERS
    assert isinstance(optimiser("rowwise", [table()], lr=0.1, weight_decay=0.0), RowwiseAdam)
