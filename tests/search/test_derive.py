"""Designs: derived, drawn or hand-made; written, read, built, and folded for serving."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.clock import Clock, constant
from recdistill.errors import DataError, SettingsError, UnknownName, UsageError
from recdistill.search.cells import Chain
from recdistill.search.derive import Design, derive, inherit, living, named, reestimate
from recdistill.search.fold import fold
from recdistill.search.norm import PositionNorm
from recdistill.search.sampling import Architecture, Choice
from recdistill.search.space import SPACES


def architecture(space, **more):
    return Architecture(space, cells=4, temperature=constant(1.0), **more)


def test_what_is_derived_is_the_operator_of_greatest_alpha(causal):
    one = architecture(causal)
    with torch.no_grad():
        for edge, operator in enumerate([7, 9, 0, 3, 6, 9]):
            one.alpha[0, edge, operator] = 1.0
    design = derive(one, width=16, seed=3, fingerprints={"data": "ab12"})
    row = ("cau_avg_pool", "none", "cau_cnn_3_d1", "cau_cnn_5_d1", "cau_max_pool", "none")
    assert design.operators == (row,) * 4
    assert (design.space, design.nodes, design.width, design.depth, design.exit) == ("causal", 3, 16, 4, False)
    assert (design.seed, design.fingerprints) == (3, {"data": "ab12"})
    assert json.loads(design.to_json())["cells"][0][2] == {"source": 1, "target": 2, "operator": "cau_cnn_3_d1"}


def test_what_would_read_nothing_is_none(causal):
    # node 1 has no input; node 2 has one of its own; node 3 hears from both
    row = ("none", "skip_connect", "cau_cnn_3_d1", "none", "cau_cnn_5_d1", "cau_max_pool")
    kept = ("none", "skip_connect", "none", "none", "none", "cau_max_pool")
    assert living(row, causal) == living(kept, causal) == kept
    # a node that heard from a dead one alone is dead too
    assert living(("none", "none", "cau_avg_pool", "none", "skip_connect", "cau_cnn_3_d4"), causal) == ("none",) * 6
    one = architecture(causal)
    with torch.no_grad():
        for edge, name in enumerate(row):
            one.alpha[0, edge, causal.index(name)] = 1.0
    assert derive(one, width=4).operators[0] == kept


@pytest.mark.parametrize("seed", [116, *range(12)])  # 116 drew a convolution of nothing
def test_in_evaluation_a_random_cell_is_what_was_trained(seed, causal):
    torch.manual_seed(0)
    chain = named(f"random-{seed}", causal, width=8).build(seed=1).train()
    optimiser = torch.optim.Adam(chain.parameters(), lr=1e-2)
    x, real = torch.randn(64, 6, 8), torch.ones(64, 6, dtype=torch.bool)

    def run():
        return chain(x, real).output

    for _ in range(60):
        optimiser.zero_grad()
        (run() - x.roll(1, 1)).square().mean().backward()
        optimiser.step()
    learned = run()
    reestimate(chain, lambda batch: chain(*batch), [(x, real)])
    with torch.no_grad():
        chain.eval()
        torch.testing.assert_close(run(), learned.detach(), rtol=0.02, atol=0.02)


def test_cells_may_differ_and_depth_may_be_found(causal):
    one = architecture(causal, shared=False, depth=True)
    with torch.no_grad():
        one.depth[1] = 1.0
        one.alpha[1, :, 9] = 1.0
    design = derive(one, width=8)
    assert (design.depth, design.exit, len(design.cells)) == (2, True, 2)
    assert design.operators[1] == ("none",) * 6
    chain = design.build()
    assert len(chain.cells) == 2
    assert set(chain.exits) == {"2"}


def test_a_derived_chain_with_inherited_weights_is_the_supernet_at_its_best(causal, x):
    states, real = x
    supernet, one = Chain.supernet(causal, width=8, depth=True), architecture(causal, depth=True, seed=4)
    for step in range(3):  # statistics that are not trivial
        supernet(states, real, one.sample(Clock(0, step), paths=10))
    derived = derive(one, width=8).build(seed=99)
    inherit(derived, supernet)
    expected = supernet.eval()(states, real, one.best())
    torch.testing.assert_close(derived.eval()(states, real).output, expected.output)
    torch.testing.assert_close(derived(states, real).layers, expected.layers)


def test_weights_of_another_width_are_refused(causal):
    derived = named("all-cau_cnn_3_d1", causal, width=8).build()
    with pytest.raises(SettingsError, match=r"The supernet has \(4, 4, 3\) for .*Derive at the supernet's width"):
        inherit(derived, Chain.supernet(causal, width=4))
    with pytest.raises(SettingsError, match=r"The supernet has nothing for 'cells.2"):
        inherit(derived, Chain.supernet(causal, width=8, cells=2))


def test_statistics_are_estimated_anew_as_the_average_of_batches(causal):
    chain = named("all-cau_cnn_3_d1", causal, width=4, depth=1).build()
    batches = [torch.randn(6, 5, 4) for _ in range(3)]
    real = torch.ones(6, 5, dtype=torch.bool)
    for norm in (m for m in chain.modules() if isinstance(m, PositionNorm)):
        norm.mean.fill_(77.0)
    chain.train()
    reestimate(chain, lambda batch: chain(batch, real), batches)
    conv = chain.cells[0].edges[0]["cau_cnn_3_d1"]
    means = [
        torch.nn.functional.conv1d(
            torch.nn.functional.pad(batch.relu().transpose(1, 2), (2, 0)), conv.weight, conv.bias
        ).mean((0, 2))
        for batch in batches
    ]
    torch.testing.assert_close(conv.norm.mean, torch.stack(means).mean(0))
    assert conv.norm.momentum == 0.1
    assert chain.training


def test_statistics_are_estimated_without_dropout_and_the_mode_is_kept(causal):
    chain = named("random-3", causal, width=8).build().eval()
    modes = []
    reestimate(
        chain, lambda _: modes.append([m.training for m in chain.modules() if not isinstance(m, PositionNorm)]), [0]
    )
    assert not any(modes[0])
    assert not any(module.training for module in chain.modules())


@given(st.integers(0, 10_000), st.sampled_from(["causal", "published"]), st.integers(1, 5), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_a_design_survives_json(seed, space, depth, width):
    design = named(f"random-{seed}", SPACES[space], width=width, depth=depth)
    assert Design.from_json(design.to_json()) == design
    assert design.seed == seed


def test_random_cells_are_spread_over_the_operators(causal):
    drawn = [op for seed in range(100) for op in named(f"random-{seed}", causal, width=4).operators[0]]
    for name in causal.names:
        assert 30 < drawn.count(name) < 110  # 60 expected, sd 7.3; none is more, since what would read nothing is none


def test_cells_by_name(causal, published):
    assert set(named("all-skip", causal, width=4).operators[0]) == {"skip_connect"}
    assert set(named("all-none", causal, width=4).operators[0]) == {"none"}
    assert named("nextitnet", causal, width=4).operators[0] == (
        "cau_cnn_3_d1", "none", "cau_cnn_3_d2", "none", "none", "none",
    )  # fmt: skip
    with pytest.raises(UnknownName, match=r"Unknown cell 'nextitne'.*Did you mean 'nextitnet'"):
        named("nextitne", causal, width=4)
    with pytest.raises(UnknownName, match="Unknown operator of the space 'causal' 'std_cnn_3'"):
        named("all-std_cnn_3", causal, width=4)


def tampered(causal, change):
    table = json.loads(named("random-1", causal, width=4).to_json())
    change(table)
    return json.dumps(table)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda t: t.update(space="casual"), UnknownName, "Unknown search space 'casual'. Did you mean 'causal'"),
        (lambda t: t.update(widht=4), SettingsError, "Unknown setting 'widht'. Did you mean 'width'"),
        (lambda t: t.update(width="4"), SettingsError, "The setting 'width' must be a whole number"),
        (lambda t: t.update(nodes=4), SettingsError, "The edges of a design are not those of its space"),
        (lambda t: t["cells"][0].pop(), SettingsError, "Allowed: 0->1, 0->2, 1->2, 0->3, 1->3, 2->3"),
        (
            lambda t: t["cells"].append(t["cells"][0]),
            SettingsError,
            "another number of cells; got 2. Allowed: 1 for all, or 4",
        ),
        (
            lambda t: t["cells"][0][0].update(operator="nothing"),
            UnknownName,
            "Unknown operator of the space 'causal' 'noth",
        ),
        (lambda t: t.update(version=2), SettingsError, "version"),
    ],
)
def test_a_design_that_does_not_fit_is_refused(causal, change, error, words):
    with pytest.raises(error) as refused:
        Design.from_json(tampered(causal, change))
    assert words in str(refused.value)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_what_is_not_a_json_object_is_no_design(text):
    with pytest.raises(DataError, match="A design must be"):
        Design.from_json(text)


def test_a_cell_of_too_few_names_is_refused(causal):
    with pytest.raises(SettingsError, match=r"A cell needs an operator for every edge.*6 names, for the edges 0->1"):
        Design.of(causal, [["none"] * 5], width=4)


@pytest.mark.parametrize("pads", [False, True])
@pytest.mark.parametrize("name", ["all-none", "all-skip", "nextitnet", "sasrec", *(f"random-{n}" for n in range(12))])
def test_folding_changes_no_output(attentive, x, name, pads, shaken):
    states, real = x
    chain = shaken(named(name, attentive, width=8).build(pads=pads))
    folded = fold(chain)
    torch.testing.assert_close(folded(states, real), chain(states, real).output, rtol=1e-5, atol=1e-5)


def test_folding_drops_what_does_nothing(causal, shaken):
    # node 1 is dead (none), so is what pools it; a convolution of it is a constant; node 3 is its live edge from 0
    names = ["none", "none", "cau_max_pool", "cau_cnn_3_d1", "cau_cnn_5_d1", "skip_connect"]
    chain = shaken(Design.of(causal, [names], width=8, depth=1).build())
    (cell,) = fold(chain).cells
    assert cell.dead == {1, 2}
    assert cell.sources == {0: [], 1: [], 2: [], 3: [0]}
    torch.testing.assert_close(cell.constant[3, :, 0], chain.cells[0].edges[4]["cau_cnn_5_d1"].folded().bias)
    x, real = torch.randn(2, 6, 8), torch.ones(2, 6, dtype=torch.bool)
    torch.testing.assert_close(fold(chain)(x, real), chain(x, real).output, rtol=1e-5, atol=1e-5)


def test_attention_to_a_dead_node_is_a_constant_once_folded(attentive, shaken):
    names = ["none", "attention", "attention", "attention", "none", "none"]  # node 1 is dead
    chain = shaken(Design.of(attentive, [names], width=8, depth=1).build())
    (cell,) = fold(chain).cells
    assert cell.sources == {0: [], 1: [], 2: [0], 3: [0]}
    assert cell.constant[2].any()
    x, real = torch.randn(2, 6, 8), torch.ones(2, 6, dtype=torch.bool)
    torch.testing.assert_close(fold(chain)(x, real), chain(x, real).output, rtol=1e-5, atol=1e-5)


def test_a_folded_exit_is_kept(causal, x, shaken):
    states, real = x
    row = named("random-2", causal, width=8).operators[0]
    chain = shaken(Design.of(causal, [row], width=8, depth=2, exit=True).build())
    torch.testing.assert_close(fold(chain)(states, real), chain(states, real).output, rtol=1e-5, atol=1e-5)


def test_a_supernet_cannot_be_folded(causal):
    with pytest.raises(UsageError, match=r"Only a derived chain can be folded. Derive one"):
        fold(Chain.supernet(causal, width=4, cells=1))


def test_the_best_choice_asks_one_operator_an_edge(causal):
    best = architecture(causal).best()
    assert isinstance(best, Choice)
    assert all(len(edge) == 1 for edge in best.paths[0])
    assert best.weights is None
