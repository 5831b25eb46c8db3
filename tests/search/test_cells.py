"""Cells, chains and students: sizes, values, and what they can see."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.clock import Clock, constant
from recdistill.errors import UsageError
from recdistill.search.cells import Chain
from recdistill.search.derive import Design, named
from recdistill.search.norm import PositionNorm
from recdistill.search.sampling import Architecture
from recdistill.search.space import SPACES


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("width", "sizes"),
    [(64, (2_387_468, 300_044, 496_652, 524)), (32, (603_916, 76_300, 125_452, 268))],
)
def test_bodies_have_the_parameters_of_the_sheet(published, causal, width, sizes):
    supernet, k3, k5, nothing = sizes
    # an edge k C^2 + 3 C, a cell its edges + 3 + 2 C; C = 64, k = 3: 4 * (6 * 12,480 + 131) = 300,044
    for space, three, five, pool in (
        (published, "cau_cnn_3", "std_cnn_5", "max"),
        (causal, "cau_cnn_3_d4", "cau_cnn_5_d2", "cau_avg"),
    ):
        assert count(Chain.supernet(space, width=width)) == supernet
        assert count(named(f"all-{three}", space, width=width).build()) == k3
        assert count(named(f"all-{five}", space, width=width).build()) == k5
        for free in (f"{pool}_pool", "skip", "none"):
            assert count(named(f"all-{free}", space, width=width).build()) == nothing


def test_a_cell_is_the_formula(causal):
    """y = x + ReLU(LN(sum_j softmax(w)_j h_j)), edges see ReLU(h_i); skip on 0->1 and 1->2, a mean on 0->3."""
    names = ["skip_connect", "none", "skip_connect", "cau_avg_pool", "none", "none"]
    chain = Design.of(causal, [names], width=2, depth=1).build()
    (cell,) = chain.cells
    with torch.no_grad():
        cell.mix.copy_(torch.tensor([1.0, 2.0, 4.0]).log())  # shares 1/7, 2/7, 4/7
    x = torch.tensor([[[1.0, -2], [3, 5]]])
    h = torch.tensor([[[1.0, 0], [3, 5]]])  # ReLU(x) = h1 = h2
    mean = torch.tensor([[[1.0, 0], [2, 2.5]]])  # of one, then of two
    mixed = 3 / 7 * h + 4 / 7 * mean
    centred = mixed - mixed.mean(-1, keepdim=True)
    expected = x + (centred / centred.square().mean(-1, keepdim=True).sqrt()).relu()
    torch.testing.assert_close(chain(x, torch.ones(1, 2, dtype=torch.bool)).output, expected)


def test_the_all_none_cell_adds_a_constant(causal, x):
    states, real = x
    chain = named("all-none", causal, width=8, depth=1).build()
    torch.testing.assert_close(chain(states, real).output, states)  # LN(0) = its bias = 0
    with torch.no_grad():
        chain.cells[0].norm.bias.copy_(torch.arange(8.0) - 4)
    expected = (states + (torch.arange(8.0) - 4).relu()) * real[..., None]
    torch.testing.assert_close(chain(states, real).output, expected)


def future(module, run, length=12):
    """Whether changing what comes after position 5 changes anything at positions <= 5."""
    g = torch.Generator().manual_seed(2)
    x = torch.randn(2, length, 8, generator=g)
    real = torch.ones(2, length, dtype=torch.bool)
    real[1, :3] = False
    x = x * real[..., None]
    changed = x.clone()
    changed[:, 6:] = torch.randn(2, length - 6, 8, generator=g) * 3
    one, two = run(module, x, real), run(module, changed, real)
    assert not torch.equal(one.output[:, 6:], two.output[:, 6:])
    return not (
        torch.equal(one.output[:, :6], two.output[:, :6]) and torch.equal(one.layers[:, :, :6], two.layers[:, :, :6])
    )


CELLS = [
    "all-none",
    "all-skip",
    "nextitnet",
    "sasrec",
    *(f"all-{name}" for name in SPACES["attentive"].names),
    *(f"random-{n}" for n in range(6)),
]


@pytest.mark.parametrize("name", CELLS)
def test_no_cell_of_a_causal_space_sees_the_future(attentive, name, shaken):
    chain = shaken(named(name, attentive, width=8, depth=3).build())
    assert not future(chain, lambda chain, x, real: chain(x, real))


@given(st.integers(0, 10_000), st.integers(0, 10), st.integers(0, 6), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_whatever_the_cell_the_place_and_the_padding_the_future_changes_nothing(seed, place, padding, depth):
    chain = named(f"random-{seed}", SPACES["attentive"], width=4, depth=depth).build(seed=seed)
    g = torch.Generator().manual_seed(seed)
    for module in chain.modules():
        if isinstance(module, PositionNorm):
            module.mean.copy_(torch.randn(4, generator=g))
            module.bias.data.copy_(torch.randn(4, generator=g))
    real = torch.arange(12)[None] >= padding
    one = torch.randn(1, 12, 4, generator=g) * real[..., None]
    two = one.clone()
    two[:, place + 1 :] = torch.randn(1, 11 - place, 4, generator=g) * real[:, place + 1 :, None]
    before, after = chain.eval()(one, real), chain(two, real)
    assert torch.equal(before.output[:, : place + 1], after.output[:, : place + 1])
    assert torch.equal(before.layers[:, :, : place + 1], after.layers[:, :, : place + 1])


def test_the_supernet_of_a_causal_space_does_not_see_the_future(attentive, shaken):
    chain = shaken(Chain.supernet(attentive, width=8, cells=2, depth=True))
    architecture = Architecture(attentive, cells=2, temperature=constant(1.0), depth=True)
    for paths in (1, 2, len(attentive)):
        choice = architecture.sample(Clock(0, paths), paths=paths)
        assert not future(chain, lambda chain, x, real, choice=choice: chain(x, real, choice))


@pytest.mark.parametrize("name", SPACES["published"].names)
def test_of_the_published_space_exactly_six_cells_see_the_future(published, name, shaken):
    chain = shaken(named(f"all-{name}", published, width=8, depth=2).build())
    leaks = {"std_cnn_3", "dil_cnn_3", "std_cnn_5", "dil_cnn_5", "max_pool", "avg_pool"}
    assert future(chain, lambda chain, x, real: chain(x, real)) == (name in leaks)


@pytest.mark.parametrize("name", ["all-cau_cnn_3_d1", "random-1", "random-2", "nextitnet", "sasrec", "all-attention"])
def test_how_much_padding_stands_before_a_history_changes_nothing(attentive, name, shaken):
    chain = shaken(named(name, attentive, width=8, depth=2).build())
    x = torch.randn(2, 5, 8)
    short = chain(x, torch.ones(2, 5, dtype=torch.bool)).output
    padded = torch.cat([torch.zeros(2, 4, 8), x], 1)
    real = torch.cat([torch.zeros(2, 4), torch.ones(2, 5)], 1).bool()
    long = chain(padded, real).output
    torch.testing.assert_close(long[:, 4:], short)
    assert (long[:, :4] == 0).all()


def test_reading_padding_is_an_option(causal, x, shaken):
    states, real = x
    kept = shaken(named("all-cau_cnn_3_d1", causal, width=8).build(pads=True, over="all"))
    masked = shaken(named("all-cau_cnn_3_d1", causal, width=8).build())
    assert not torch.equal(kept(states, real).output[real], masked(states, real).output[real])
    assert (kept(states, real).output[~real] != 0).any()


def test_weights_are_a_function_of_the_seed_and_of_their_name(causal):
    chance = torch.get_rng_state()
    supernet, derived = Chain.supernet(causal, width=8, seed=3), named("random-1", causal, width=8).build(seed=3)
    assert torch.equal(torch.get_rng_state(), chance)
    whole = supernet.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in derived.state_dict().items())
    other = named("random-1", causal, width=8).build(seed=4).state_dict()
    assert any(not torch.equal(value, other[name]) for name, value in derived.state_dict().items())


def test_convolutions_begin_as_torch_begins_them(causal):
    (cell,) = Chain.supernet(causal, width=16, cells=1).cells
    for name, k in (("cau_cnn_3_d1", 3), ("cau_cnn_5_d4", 5)):
        weight, bound = cell.edges[0][name].weight, (k * 16) ** -0.5
        assert 0.97 * bound < weight.abs().max() < bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_a_chain_needs_a_cell(causal):
    with pytest.raises(UsageError, match="at least one cell"):
        Chain(causal, [], width=4)
