"""Prices: those of the sheet, counted ones against what is built, expected ones and their gradients; budgets."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.clock import constant
from recdistill.errors import DataError, SettingsError, UsageError
from recdistill.search.budget import Budget, within
from recdistill.search.cost import Costs, Shape, counted, one_hot, published
from recdistill.search.derive import derive, named
from recdistill.search.fidelity import Fidelity, kendall, spearman
from recdistill.search.latency import agreement, device_of, folder, measured, timed
from recdistill.search.sampling import Architecture
from recdistill.search.space import SPACES, Space

PUBLISHED, CAUSAL = SPACES["published"], SPACES["causal"]


def test_the_official_prices_are_reproduced():
    prices = dict(zip(PUBLISHED.names, published(PUBLISHED).operators, strict=True))
    assert prices["std_cnn_3"] == prices["cau_cnn_3"] == pytest.approx(0.56531834, abs=1e-8)
    assert prices["dil_cnn_5"] == pytest.approx(2.12701275, abs=1e-8)
    assert prices["max_pool"] == prices["avg_pool"] == pytest.approx(0.48075444, abs=1e-8)
    assert prices["skip_connect"] == prices["none"] == pytest.approx(0.48074893, abs=1e-8)
    assert sum(prices.values()) == pytest.approx(10)


@pytest.mark.parametrize(
    ("width", "length", "row"),
    [
        (64, 50, (1.0186, 1.2846, 0.7731, 0.7722)),
        (64, 20, (1.0193, 1.1156, 0.8991, 0.8986)),
        (64, 10, (1.0121, 1.0598, 0.9462, 0.9459)),
        (32, 50, (1.0137, 1.0700, 0.9376, 0.9369)),
        (32, 20, (1.0063, 1.0285, 0.9740, 0.9737)),
        (32, 10, (1.0035, 1.0149, 0.9863, 0.9862)),
    ],
)
def test_for_other_shapes_they_are_those_of_the_sheet(width, length, row):
    prices = dict(zip(PUBLISHED.names, published(PUBLISHED, Shape(width, length)).operators, strict=True))
    found = [prices[name] for name in ("cau_cnn_3", "cau_cnn_5", "max_pool", "none")]
    assert found == pytest.approx(row, abs=1e-4)  # it rounds to four digits


def test_the_prices_of_pure_cells_are_those_of_the_sheet():
    costs = published(PUBLISHED)
    for name, total in (("cau_cnn_3", 3.392), ("std_cnn_5", 12.762), ("none", 2.884)):
        pure = one_hot([[PUBLISHED.index(name)] * 6], 10)
        assert costs.expected(pure, None, 1).item() == pytest.approx(total, abs=5e-4)


@pytest.mark.parametrize("name", ["all-cau_cnn_3_d2", "all-none", "random-3", "random-8"])
@pytest.mark.parametrize("what", ["params", "bytes"])
def test_counted_parameters_are_those_of_what_is_built(name, what):
    design = named(name, CAUSAL, width=12, depth=3)
    built = sum(p.numel() for p in design.build().parameters())
    shape = Shape(12, 50, items=100, tied=False, bias=True)
    tables = 2 * 100 * 12 + 50 * 12 + 100 + 2 * 12  # the last is the norm's
    assert counted(CAUSAL, shape, what).of(design, CAUSAL) == (built + tables) * (4 if what == "bytes" else 1)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_norms_around_the_cells_are_counted(norm, last):
    shape = Shape(12, 50, items=100, norm=norm, exit=last)
    assert shape.table_params == 100 * 12 + 50 * 12 + (norm + last) * 2 * 12


def test_multiply_adds_are_those_of_the_sheet():
    # 24 edges of k C^2 at each of 50 positions: 14.7 M and 24.6 M; bias and norm (3 C) are counted besides
    costs, space = counted(PUBLISHED, Shape(64, 50), "macs"), PUBLISHED
    for name, convolutions in (("cau_cnn_3", 14_745_600), ("std_cnn_5", 24_576_000)):
        whole = costs.of(named(f"all-{name}", space, width=64), space) - 4 * costs.cell
        assert whole - 24 * 50 * 3 * 64 == convolutions
    assert counted(PUBLISHED, Shape(64, 50, items=60_000), "macs").fixed == 3_840_000


def enumerated(costs, chances, depth, cells):
    """The mean over every architecture, one by one."""
    total = 0.0
    for size, p_size in enumerate(depth.tolist(), 1):
        for pick in itertools.product(range(chances.shape[2]), repeat=chances.shape[1]):
            p = math.prod(chances[0, edge, one].item() for edge, one in enumerate(pick))
            cost = costs.fixed + size * (costs.cell + sum(costs.operators[one] for one in pick))
            total += p_size * p * cost
    return total


def test_the_expected_cost_is_the_mean_over_all_architectures():
    costs = Costs("ms", (0.3, 1.7, 0.0), cell=0.4, fixed=2.0)
    chances = torch.randn(1, 3, 3, dtype=torch.float64).softmax(-1)
    depth = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    assert costs.expected(chances, depth, 3).item() == pytest.approx(enumerated(costs, chances, depth, 3))
    sure = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert costs.expected(chances, None, 3).item() == pytest.approx(enumerated(costs, chances, sure, 3))


def test_the_expected_cost_of_a_sure_architecture_is_that_of_its_design():
    costs = counted(CAUSAL, Shape(8, 20, items=50), "macs")
    for shared, depth in itertools.product((True, False), repeat=2):
        one = Architecture(CAUSAL, cells=3, temperature=constant(1.0), shared=shared, depth=depth, seed=3)
        best = one.best()
        chances = one_hot([[edge[0] for edge in row] for row in best.paths], 10)
        sure = torch.nn.functional.one_hot(torch.tensor(best.depths[0] - 1), 3).double() if depth else None
        design = derive(one, width=8)
        assert costs.expected(chances, sure, 3).item() == pytest.approx(costs.of(design, CAUSAL))


def test_the_gradient_of_the_expected_cost_passes_a_finite_difference_check():
    costs = Costs("ms", (0.3, 1.7, 0.0), cell=0.4)
    alpha = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    depth = torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, d: costs.expected(a.softmax(-1), d.softmax(0), 2), (alpha, depth))


def test_the_dearest_is_what_can_be_saved():
    costs = Costs("ms", (0.3, 1.7, 0.0), cell=0.4, fixed=2.0)
    assert costs.dearest(3, 6) == pytest.approx(3 * (0.4 + 6 * 1.7))


# budgets


@pytest.mark.parametrize(
    ("text", "of", "most"),
    [
        ("2 ms", "latency", 2.0), ("2ms", "latency", 2.0), ("latency=2ms", "latency", 2.0), ("500us", "latency", 0.5),
        ("1.5 s", "latency", 1500.0), ("5 MB", "bytes", 5e6), ("bytes = 5 MiB", "bytes", 5 * 2**20),
        ("512 kB", "bytes", 512e3), ("5 mb", "bytes", 5e6), ("3e5 params", "params", 3e5),
        ("300 kparams", "params", 3e5), ("20 Mmacs", "macs", 2e7),
        ("macs=20M", "macs", 2e7), ("params = 300k", "params", 3e5), ("bytes=5M", "bytes", 5e6),
        ("params=1G", "params", 1e9), ("bytes=40", "bytes", 40.0),
    ],
)  # fmt: skip
def test_budgets_are_read(text, of, most):
    budget = Budget.parse(text)
    assert (budget.of, budget.most) == (of, pytest.approx(most))
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fast", "A budget cannot be read; got 'fast'. Allowed: a number and a unit, as in '2 ms', '5 MB'"),
        ("2", "A budget needs a unit; got '2'. Allowed: ns, us, ms"),
        ("2 mss", "Unknown unit 'mss' of the budget '2 mss'. Did you mean 'ms'?"),
        ("bytes=2ms", "The budget 'bytes=2ms' says 'bytes', and 'ms' is a unit of 'latency'"),
        ("latencey=2ms", "Did you mean 'latency'?"),
        ("latency=2", "A budget needs a unit; got 'latency=2'. Allowed: ns, us, ms, s."),
        ("macs=20Mac", "Did you mean 'macs'? Allowed: macs, kmacs, Mmacs, Gmacs."),
        ("5M", "Unknown unit 'M' of the budget '5M'. Allowed: "),
        ("5M", "Say what it is of: bytes=5M or params=5M or macs=5M."),
        ("parms=5M", "The budget 'parms=5M' says 'parms'. Did you mean 'params'?"),
        ('5"MB', "A budget cannot be read; got '5\"MB'."),
        ("0 MB", "A budget must be above 0 and finite; got '0 MB'"),
        ("1e400 MB", "A budget must be above 0 and finite; got '1e400 MB'"),
        ("-1 MB", "A budget cannot be read"),
    ],
)
def test_budgets_that_cannot_be_kept_to_are_refused(text, message):
    with pytest.raises(SettingsError) as caught:
        Budget.parse(text)
    assert message in str(caught.value)


SMALL = Space("small", CAUSAL.operators[:1] + CAUSAL.operators[-2:], nodes=2)  # 3 operators on 3 edges


@given(st.integers(0, 10_000), st.floats(0.5, 12.0), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_keeps_a_budget_costs_less_and_is_nearly_the_likeliest(seed, most, shared, deep):
    one = Architecture(SMALL, cells=2, temperature=constant(1.0), shared=shared, depth=deep, seed=seed)
    with torch.no_grad():
        one.alpha.mul_(200)
    costs = Costs("ms", (1.0, 0.4, 0.0), cell=0.2, fixed=0.05)
    choice = within(one, costs, most)
    log_p = one.alpha.detach().double().log_softmax(-1)
    log_d = None if one.depth is None else one.depth.detach().double().log_softmax(0)

    def judged(paths, size):
        rows = paths if len(paths) > 1 else paths * size
        cost = costs.fixed + sum(costs.cell + sum(costs.operators[p] for p in row) for row in rows[:size])
        kept = rows[:1] if shared else rows[:size]
        score = sum(log_p[g, e, p].item() for g, row in enumerate(kept) for e, p in enumerate(row))
        score += log_p[len(kept) :].max(-1).values.sum().item()
        return cost, score + (0 if log_d is None else log_d[size - 1].item())

    size = choice.depths[0] if deep else 2
    cost, score = judged([[edge[0] for edge in row] for row in choice.paths], size)
    assert cost <= most + 1e-9
    best = -math.inf
    rows = list(itertools.product(range(3), repeat=3))
    for depth in (1, 2) if deep else (2,):
        for paths in itertools.product(rows, repeat=1 if shared else depth):
            price, value = judged(list(paths), depth)
            best = max(best, value) if price <= most + 1e-12 else best
    assert score <= best + 1e-9
    spread = float((log_p.max(-1).values - log_p.min(-1).values).max())
    assert score >= best - 2 * spread * (1 if not shared else 2)  # one edge of every cell, and its change


def test_a_budget_that_binds_nothing_gives_the_arg_max():
    one = Architecture(CAUSAL, cells=4, temperature=constant(1.0), depth=True, seed=3)
    costs = counted(CAUSAL, Shape(8, 20), "params")
    assert within(one, costs, 1e12).paths == one.best().paths
    assert within(one, costs, 1e12).depths == one.best().depths


def test_a_budget_below_the_cheapest_is_refused_with_what_it_is_made_of():
    one = Architecture(CAUSAL, cells=4, temperature=constant(1.0))
    costs = counted(CAUSAL, Shape(8, 20, items=1000), "bytes")
    with pytest.raises(UsageError) as caught:
        within(one, costs, 1000)
    for words in (
        "No architecture keeps the budget of 1.0 kB: the cheapest costs 33.0 kB",
        "of which 32.7 kB are not of cells: tables",
        "lower the width",
    ):
        assert words in str(caught.value)


# latency, with a timer that counts


def counting(rates):
    """A timer that knows how long each work takes: nothing is timed."""
    calls = []

    def timer(works, device):
        calls.append(len(works))
        for work in works:
            work()
        return rates[: len(works)]

    return timer, calls


def test_a_table_is_made_once_for_a_shape_and_read_after(tmp_path):
    # 2 cells x 6 edges: (3.4 - 1.0) / 12 = 0.2 an edge; a cell 1.0 / 2; embedding and scores 0.25
    timer, calls = counting([3.4, 3.4, 3.4, 4.6, 4.6, 4.6, 1.6, 1.6, 0.9, 1.0, 0.25])
    shape = Shape(4, 6, items=20)
    costs = measured(CAUSAL, shape, keep=tmp_path, timer=timer)
    assert costs.operators == pytest.approx([0.2] * 3 + [0.3] * 3 + [0.05] * 2 + [0.0] * 2)
    assert (costs.unit, costs.cell, costs.fixed) == ("ms", 0.5, 0.25)
    assert measured(CAUSAL, shape, keep=tmp_path, timer=timer) == costs
    assert calls == [11]
    measured(CAUSAL, Shape(4, 7, items=20), keep=tmp_path, timer=timer)
    assert calls == [11, 11]
    assert len(list(tmp_path.iterdir())) == 2, "nothing but tables is left"
    assert json.loads(next(tmp_path.iterdir()).read_text())["device"] == device_of(torch.device("cpu"))


def test_another_device_is_another_table(tmp_path, monkeypatch):
    timer, calls = counting([1.0] * 11)
    one = measured(CAUSAL, Shape(4, 6), keep=tmp_path, timer=timer)
    monkeypatch.setattr("recdistill.search.latency.platform.machine", lambda: "abacus")
    other = measured(CAUSAL, Shape(4, 6), keep=tmp_path, timer=timer)
    assert len(calls) == 2
    assert one.digest != other.digest


def test_a_price_is_of_one_thread_whatever_torch_has(tmp_path):
    before, seen = torch.get_num_threads(), []

    def timer(works, device):
        seen.append(torch.get_num_threads())
        return [1.0] * len(works)

    torch.set_num_threads(3)
    try:
        one = measured(CAUSAL, Shape(4, 6), keep=tmp_path, timer=timer)
        agreement(
            CAUSAL,
            Shape(4, 6),
            one,
            [named("all-skip", CAUSAL, width=4), named("nextitnet", CAUSAL, width=4)],
            timer=timer,
        )
        assert torch.get_num_threads() == 3
        torch.set_num_threads(2)
        assert measured(CAUSAL, Shape(4, 6), keep=tmp_path, timer=timer) == one
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1]


@pytest.mark.parametrize("text", ["{", "{}", '{"ms": [1], "operators": [], "cell_ms": 1, "fixed_ms": 0}'])
def test_a_broken_table_is_refused(tmp_path, text):
    timer, _ = counting([1.0] * 11)
    measured(CAUSAL, Shape(4, 6), keep=tmp_path, timer=timer)
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    with pytest.raises(DataError, match=r"The table of latencies .*Delete it, and it will be measured again"):
        measured(CAUSAL, Shape(4, 6), keep=tmp_path, timer=timer)


def test_tables_are_kept_where_caches_are(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder() == tmp_path / "recdistill" / "latency"


def test_the_timer_calls_what_it_times():
    done = []
    taken = timed([lambda: done.append(1), lambda: done.append(2)], torch.device("cpu"), rounds=3, least_ms=0.001)
    assert len(taken) == 2
    assert all(ms >= 0 for ms in taken)
    assert set(done) == {1, 2}


def test_agreement_is_the_rank_correlation_of_predicted_and_measured():
    designs = [named(f"random-{seed}", CAUSAL, width=4, depth=2) for seed in range(4)]
    costs = counted(CAUSAL, Shape(4, 6), "macs")
    true = [costs.of(design, CAUSAL) for design in designs]
    assert agreement(CAUSAL, Shape(4, 6), costs, designs, timer=lambda works, _: true) == pytest.approx(1)
    turned = lambda works, _: [-each for each in true]  # noqa: E731
    assert agreement(CAUSAL, Shape(4, 6), costs, designs, timer=turned) == pytest.approx(-1)


# rank correlation


def test_rank_correlations_by_hand():
    # pairs of (1,1) (2,3) (3,2) (4,4): one of six is discordant: (5 - 1) / 6; d^2 = 0 1 1 0: 1 - 6 * 2 / 60
    assert kendall([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    # a tie on one side: 5 untied of 6 pairs there: 5 / sqrt(5 * 6)
    assert kendall([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(5 / math.sqrt(30))
    assert math.isnan(kendall([1, 1], [1, 2]))
    with pytest.raises(UsageError, match="two lists of one length"):
        kendall([1], [1])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=20))
@settings(max_examples=50, deadline=None)
def test_rank_correlations_are_scipys(pairs):
    stats = pytest.importorskip("scipy.stats")
    a, b = map(list, zip(*pairs, strict=True))
    if len(set(a)) > 1 and len(set(b)) > 1:
        assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_fidelity_in_a_line():
    both = Fidelity(("a", "b", "c"), (0.1, 0.2, 0.3), (0.2, 0.1, 0.4))
    assert str(both) == "3 designs: Kendall tau 0.33, Spearman rho 0.50"
