"""What the operators are, what they see, what they cost; and that a space is data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from recdistill.clock import Clock
from recdistill.errors import UnknownName, UsageError
from recdistill.search.attention import Attention
from recdistill.search.cells import Chain
from recdistill.search.derive import Design, derive, named
from recdistill.search.operators import OnEdge, Operator
from recdistill.search.sampling import Architecture, annealed
from recdistill.search.space import SPACES

PUBLISHED = [(space, op) for space in ("published",) for op in SPACES[space].names]
CAUSAL = [(space, op) for space in ("causal", "attentive") for op in SPACES[space].names]


def ready(operator, width=8):
    """The operator's module in evaluation, with weights and statistics that are not trivial."""
    module = operator.build(width, "real")
    g = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=g)
    return module.eval()


def sees(operator, length=20):
    """How far ahead of a position the operator's output there depends on its input."""
    module, real = ready(operator), torch.ones(1, 1, length, dtype=torch.bool)
    x = torch.rand(1, 8, length, generator=torch.Generator().manual_seed(0)) + 0.5
    before, found = module(x, real), set()
    for ahead in range(1, 9):
        changed = x.clone()
        changed[0, :, 9 + ahead] += 7
        if not torch.equal(module(changed, real)[0, :, 9], before[0, :, 9]):
            found.add(ahead)
    return found


@pytest.mark.parametrize(("space", "name"), CAUSAL)
def test_no_operator_of_a_causal_space_sees_the_future(space, name):
    operator = SPACES[space].operator(name)
    assert sees(operator) == set()
    assert operator.causal


def test_the_published_operators_see_of_the_future_exactly_what_the_sheet_says(published):
    ahead = {
        "std_cnn_3": {1},
        "dil_cnn_3": {2},
        "std_cnn_5": {1, 2},
        "dil_cnn_5": {2, 4},
        "max_pool": {1},
        "avg_pool": {1},
    }
    assert {name: sees(published.operator(name)) for name in published.names} == {
        name: ahead.get(name, set()) for name in published.names
    }


@pytest.mark.parametrize(("space", "name"), [*PUBLISHED, *CAUSAL])
def test_an_operator_reads_the_positions_it_says(space, name):
    operator = SPACES[space].operator(name)
    module, real = ready(operator), torch.ones(1, 1, 40, dtype=torch.bool)
    x = (torch.rand(1, 8, 40) + 0.5).requires_grad_()
    if operator.name == "none":
        assert operator.reads == ()
        return
    assert list(operator.reads[-20:]) == sorted(operator.reads[-20:]), "in order"
    # A maximum has a gradient for one position alone, so each is made the greatest in turn.
    found = set()
    asked = range(-18, 9)
    for offset in asked:
        raised = x.detach().clone()
        raised[0, :, 20 + offset] += 3
        if not torch.equal(module(raised, real)[0, :, 20], module(x.detach(), real)[0, :, 20]):
            found.add(offset)
    assert found == {offset for offset in asked if offset in operator.reads}


def test_both_spaces_have_the_ten_slots():
    for space in (SPACES["published"], SPACES["causal"]):
        assert len(space) == 10
        assert space.edges == ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
        assert [operator.params(128) for operator in space.operators].count(0) == 4
    assert SPACES["published"].names == (
        "std_cnn_3", "dil_cnn_3", "cau_cnn_3", "std_cnn_5", "dil_cnn_5", "cau_cnn_5",
        "max_pool", "avg_pool", "skip_connect", "none",
    )  # fmt: skip
    assert sum(not operator.causal for operator in SPACES["published"].operators) == 6
    assert [name for name in SPACES["published"].names if 1 in SPACES["published"].operator(name).reads] == [
        "std_cnn_3", "std_cnn_5", "max_pool", "avg_pool",
    ]  # fmt: skip


def test_sizes_are_those_of_the_sheet():
    # C = 128, L = 100: k C^2 + 3 C = 3 * 16384 + 384 = 49,536 and 82,304; times L; a pool C L = 12,800
    sizes = {op.name: (op.macs(128, 100), op.params(128)) for op in SPACES["published"].operators}
    assert sizes["cau_cnn_3"] == (4_953_600, 49_536)
    assert sizes["std_cnn_5"] == (8_230_400, 82_304)
    assert sizes["max_pool"] == sizes["avg_pool"] == (12_800, 0)
    assert sizes["skip_connect"] == sizes["none"] == (0, 0)
    # 4 C^2 + 3 C = 65,920, times T; scores and their sums 2 T^2 C = 2,560,000
    attention = SPACES["attentive"].operator("attention")
    assert (attention.macs(128, 100), attention.params(128)) == (6_592_000 + 2_560_000, 65_920)


@pytest.mark.parametrize(("space", "name"), [*PUBLISHED, *CAUSAL])
def test_an_operator_has_as_many_parameters_as_it_says(space, name):
    operator = SPACES[space].operator(name)
    assert sum(p.numel() for p in operator.build(6, "real").parameters()) == operator.params(6)


def test_a_causal_mean_counts_real_positions_only(causal):
    # history: padding, padding, 3, 6, 0: means 3/1, 9/2, 9/3; the official one divides by 3 and looks ahead
    x, real = torch.tensor([[[0.0, 0, 3, 6, 0]]]), torch.tensor([[[False, False, True, True, True]]])
    assert causal.operator("cau_avg_pool").build(1, "real")(x, real)[0, 0].tolist() == pytest.approx([0, 0, 3, 4.5, 3])
    official = SPACES["published"].operator("avg_pool").build(1, "real")(x, real)[0, 0].tolist()
    assert official == pytest.approx([0, 1, 3, 3, 2])


def test_a_causal_maximum_is_of_the_last_three(causal):
    x, real = torch.tensor([[[5.0, 1, 2, 0, 0]]]), torch.ones(1, 1, 5, dtype=torch.bool)
    assert causal.operator("cau_max_pool").build(1, "real")(x, real)[0, 0].tolist() == [5, 5, 5, 2, 2]
    assert SPACES["published"].operator("max_pool").build(1, "real")(x, real)[0, 0].tolist() == [5, 5, 2, 2, 0]


def test_attention_is_the_mean_of_what_was_before_weighted_by_likeness(attentive):
    """Scores q k / sqrt(C / h); padding is not attended to; a projection and its norm follow."""
    module = Attention("attention", heads=1).build(1, "real").eval()
    with torch.no_grad():
        module.asked.copy_(torch.tensor([[1.0], [1.0], [2.0]]))  # q = k = x, v = 2 x
        module.weight.fill_(3.0)
        module.bias.fill_(0.5)
        module.norm.mean.fill_(0.25)
        module.norm.var.fill_(4 - module.norm.eps)
    log2, log3 = math.log(2), math.log(3)
    x, real = torch.tensor([[[9.0, log2, log3]]]), torch.tensor([[[False, True, True]]])
    # at the end: weights exp(log3 log2) : exp(log3 log3) = 2^log3 : 3^log3, values 2 log2 and 2 log3
    one, other = 2**log3, 3**log3
    values = [2 * log2, 2 * (one * log2 + other * log3) / (one + other)]
    expected = [(3 * value + 0.5 - 0.25) / 2 for value in values]
    assert module(x, real)[0, 0, 1:].tolist() == pytest.approx(expected, rel=1e-5)
    assert module.folded()(x, real)[0, 0, 1:].tolist() == pytest.approx(expected, rel=1e-5)
    assert module.of_zeros().tolist() == pytest.approx([(0.5 - 0.25) / 2], rel=1e-5)


def test_a_head_sees_its_own_share_of_the_channels():
    module = ready(Attention("attention", heads=2))
    with torch.no_grad():
        module.weight.copy_(torch.eye(8))
    x, real = torch.rand(1, 8, 5), torch.ones(1, 1, 5, dtype=torch.bool)
    before = module(x, real)
    with torch.no_grad():
        module.asked[:4] *= -1  # the first head's queries: channels 0 to 3 of the three groups of eight
    moved = (module(x, real) - before).abs().amax((0, 2)) > 1e-6
    assert moved.tolist() == [True] * 4 + [False] * 4


def test_heads_that_do_not_divide_the_width_are_refused(attentive):
    why = "2 heads of the operator 'attention' do not divide the width; got 7. Take a width that they divide"
    with pytest.raises(UsageError, match=why):
        named("sasrec", attentive, width=7).build()


@pytest.mark.parametrize("name", ["attention", "cnn_1"])
def test_an_operator_is_drawn_and_its_norm_is_precise_whatever_the_rest_is(attentive, x, name):
    states, real = x
    module = attentive.operator(name).build(8, "real")
    module.draw(torch.Generator().manual_seed(0))
    weights = [p for at, p in module.named_parameters() if not at.startswith("norm")]
    assert max(float(p.detach().abs().max()) for p in weights) == pytest.approx(8**-0.5, rel=0.1)  # U(+- 1 / sqrt(C))
    with torch.autocast("cpu", torch.bfloat16):
        low = module(states.transpose(1, 2), real[:, None])
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, module(states.transpose(1, 2), real[:, None]), rtol=0.1, atol=0.1)


def test_the_published_space_is_refused_where_it_would_leak(published, causal):
    with pytest.raises(UsageError) as refused:
        published.check("every")
    for words in (
        "'published' leaks under a next-item loss at every position",
        "6 of its operators read the future (std_cnn_3, dil_cnn_3, std_cnn_5, dil_cnn_5, max_pool, avg_pool)",
        "std_cnn_3, std_cnn_5, max_pool, avg_pool read position t + 1, which is the label",
        "Use the space 'causal', or score the last position alone",
    ):
        assert words in str(refused.value)
    assert published.check("last") is published
    assert causal.check("every") is causal


def test_an_operator_that_is_not_there_gets_a_neighbour(causal):
    with pytest.raises(
        UnknownName, match=r"Unknown operator of the space 'causal' 'cau_cnn_3'. Did you mean 'cau_cnn_3"
    ):
        causal.operator("cau_cnn_3")


@dataclass(frozen=True, slots=True)
class Gate(Operator):
    """A new kind of operator: `x * sigmoid(s)`, s one number a channel. This class is all that it takes."""

    reads = (0,)

    def params(self, width):
        return width

    def macs(self, width, length):
        return width * length

    def build(self, width, over):
        return Gated(width)


class Gated(OnEdge):
    def __init__(self, width):
        super().__init__()
        self.s = nn.Parameter(torch.zeros(width))

    def forward(self, x, real, *, track=True):
        return x * self.s.sigmoid()[:, None]


@pytest.fixture
def gated(causal):
    space = replace(causal, name="gated", operators=(*causal.operators, Gate("gate")))
    SPACES.add("gated", space)
    yield space
    del SPACES._things["gated"]


def test_adding_an_operator_takes_a_dataclass_and_a_space(gated, x):
    chain = Chain.supernet(gated, width=8, cells=2)
    architecture = Architecture(gated, cells=2, temperature=annealed())
    with torch.no_grad():
        architecture.alpha[0, 2, gated.index("gate")] = 9.0
    states, real = x
    chain(states, real, architecture.sample(Clock())).output.square().sum().backward()
    design = derive(architecture, width=8)
    assert design.operators[0][2] == "gate"
    again = Design.from_json(design.to_json()).build()
    assert again(states, real).output.shape == (5, 9, 8)
