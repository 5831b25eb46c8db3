"""AdaRec's three distillation terms, against the formulas written out."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.clock import Clock
from recdistill.errors import UsageError
from recdistill.knowledge.view import View
from recdistill.query import Batch, Query
from recdistill.runtime import Runtime
from recdistill.terms.embedding_match import EmbeddingMatch
from recdistill.terms.layer_match import LayerMatch
from recdistill.terms.logit_match import LogitMatch

Q, T, S, L, I = 3, 5, 4, 8, 11  # noqa: E741
CPU = Runtime(torch.device("cpu"))
AT = torch.tensor([[0, 0], [0, 1], [0, 4], [2, 3], [2, 4]])  # the second history is not asked


class Fixed(View):
    """States and scores that are given."""

    def __init__(self, layers, width, *, seed):
        g = torch.Generator().manual_seed(seed)
        self.given = torch.randn(1 + layers, Q, T, width, generator=g).double()
        self.logits = torch.randn(len(AT), I, generator=g).double().requires_grad_()

    def states(self):
        return self.given

    def scores_among(self, items):
        return self.logits[:, items]


def batch(at=AT):
    nobody = torch.zeros(Q, dtype=torch.int64)
    return Batch(Query(nobody, history=torch.zeros(Q, T, dtype=torch.int64), at=at), nobody, nobody[:, None])


def reduced(term, student, teacher, at=AT):
    return CPU.reduce(term(student, teacher, batch(at), Clock()), term.how)


@pytest.fixture
def views():
    return Fixed(S, 6, seed=1), Fixed(L, 10, seed=2)


def match(**more):
    return LayerMatch(6, 10, students=S, teachers=L, **more).double()


def softmax(v):
    e = [math.exp(x - max(v)) for x in v]
    return [x / sum(e) for x in e]


def plain_costs(term, student, teacher, places, *, over, direction):
    """d_ij with loops over layers, positions and channels, divided by `over`."""
    weight, bias = term.projection.weight.tolist(), term.projection.bias.tolist()

    def projected(x):
        return [sum(w * v for w, v in zip(row, x, strict=True)) + c for row, c in zip(weight, bias, strict=True)]

    ours = [[softmax(projected(state[b, at].tolist())) for b, at in places] for state in student.given[1:]]
    theirs = [[softmax(state[b, at].tolist()) for b, at in places] for state in teacher.given[1:]]
    out = torch.zeros(S, L, dtype=torch.float64)
    for i, qs in enumerate(ours):
        for j, ps in enumerate(theirs):
            for q, p in zip(qs, ps, strict=True):
                a, b = (p, q) if direction == "forward" else (q, p)
                out[i, j] += sum(x * (math.log(x) - math.log(y)) for x, y in zip(a, b, strict=True)) / over
    return out


def test_the_hidden_loss_is_the_formula_in_the_official_form(views):
    """Reverse KL, summed over all positions, over B; masses turn by softmax(r / 10), the teacher's by the opposite."""
    import ot

    student, teacher = views
    term = match(direction="reverse", attention="published", teacher_costs="opposite", positions="all", per="history")
    places = [(b, at) for b in range(Q) for at in range(T)]
    d = plain_costs(term, student, teacher, places, over=Q, direction="reverse")
    opposite = plain_costs(term, student, teacher, places, over=Q, direction="forward")
    plan = torch.as_tensor(ot.emd([1 / S] * S, [1 / L] * L, d.numpy()))
    value = reduced(term, student, teacher)
    assert value.item() == pytest.approx((plan * d).sum().item(), rel=1e-5)
    for mass, costs, side, n in ((term.student_mass, d, 1, S), (term.teacher_mass, opposite, 0, L)):
        c = ((plan * costs).sum(side) * n).tolist()
        torch.testing.assert_close(mass.tolist(), softmax([sum(c) / each / 10 for each in c]), rtol=1e-5, atol=0)


def test_the_hidden_loss_is_the_formula_in_the_default_form(views):
    """Forward KL, the mean over asked positions."""
    import ot

    student, teacher = views
    term = match()
    d = plain_costs(term, student, teacher, AT.tolist(), over=len(AT), direction="forward")
    plan = torch.as_tensor(ot.emd([1 / S] * S, [1 / L] * L, d.numpy()))
    assert reduced(term, student, teacher).item() == pytest.approx((plan * d).sum().item(), rel=1e-5)


def test_the_gradient_of_the_hidden_loss_holds_the_plan_constant(views):
    student, teacher = views
    term = match(attention="none")
    student.given.requires_grad_()
    reduced(term, student, teacher).backward()
    gradient = student.given.grad.clone()
    assert (gradient[0] == 0).all()
    assert (gradient[:, 1] == 0).all()  # was not asked
    assert (gradient[1:, 0, 0] != 0).all()
    # the envelope theorem: a small step changes the optimum by gradient times step, the plan's change included
    step = 1e-5 * torch.randn_like(gradient)
    before = reduced(term, student, teacher).item()
    student.given = student.given.detach() + step
    assert reduced(term, student, teacher).item() - before == pytest.approx((gradient * step).sum().item(), rel=1e-3)


def test_masses_turn_in_training_alone_and_are_in_the_state(views):
    term = match()
    term.eval()
    reduced(term, *views)
    assert term.student_mass.tolist() == [0.25] * 4
    term.train()
    reduced(term, *views)
    assert term.student_mass.tolist() != [0.25] * 4
    again = match(seed=5)
    again.load_state_dict(term.state_dict())
    assert torch.equal(again.student_mass, term.student_mass)
    assert torch.equal(again.teacher_mass, term.teacher_mass)
    assert reduced(again, *views).item() == reduced(term, *views).item()


def test_a_student_of_fewer_layers_keeps_the_masses_of_the_others(views):
    student, teacher = views
    term = match()
    reduced(term, student, teacher)
    others = term.student_mass[2:].clone()
    student.given = student.given[:3]  # what enters, and two layers
    assert torch.isfinite(reduced(term, student, teacher))
    assert torch.equal(term.student_mass[2:], others)
    assert term.student_mass.sum().item() == pytest.approx(1)


@pytest.mark.parametrize(("mapping", "layers"), [("left", [0, 1, 2, 3]), ("right-jump", [1, 3, 5, 7])])
def test_a_fixed_mapping_is_the_mean_over_its_pairs(views, mapping, layers):
    student, teacher = views
    term = match(mapping=mapping)
    d = plain_costs(term, student, teacher, AT.tolist(), over=len(AT), direction="forward")
    assert reduced(term, student, teacher).item() == pytest.approx(
        sum(d[i, j].item() for i, j in enumerate(layers)) / 4
    )
    assert term.student_mass.tolist() == [0.25] * 4


def test_the_embedding_loss_is_the_formula(views):
    student, teacher = views
    for positions, places in (("asked", AT.tolist()), ("all", [(b, at) for b in range(Q) for at in range(T)])):
        term = EmbeddingMatch(6, 10, positions=positions).double()
        total = 0.0
        for b, at in places:
            ours = term.projection.weight @ student.given[0, b, at] + term.projection.bias
            total += sum((x - y) ** 2 for x, y in zip(ours.tolist(), teacher.given[0, b, at].tolist(), strict=True))
        value = reduced(term, student, teacher).item()
        assert value == pytest.approx(total / len(places) / 10, rel=1e-5)


@pytest.mark.parametrize(("per", "over"), [("position", len(AT)), ("history", Q)])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_logit_loss_is_the_formula(views, direction, per, over):
    student, teacher = views
    total = 0.0
    for s, t in zip(student.logits.tolist(), teacher.logits.tolist(), strict=True):
        a, b = (softmax(t), softmax(s)) if direction == "forward" else (softmax(s), softmax(t))
        total += sum(x * (math.log(x) - math.log(y)) for x, y in zip(a, b, strict=True))
    term = LogitMatch(I, direction=direction, per=per)
    assert reduced(term, student, teacher).item() == pytest.approx(total / over, rel=1e-5)


def test_without_named_positions_the_end_of_each_history_is_compared(views):
    student, teacher = views
    ends = torch.tensor([[b, T - 1] for b in range(Q)])
    for term in (match(attention="none"), EmbeddingMatch(6, 10).double()):
        torch.testing.assert_close(reduced(term, student, teacher, None), reduced(term, student, teacher, ends))


def test_nothing_reaches_the_teacher(views):
    student, teacher = views
    student.given.requires_grad_()
    teacher.given.requires_grad_()
    total = sum(reduced(term, student, teacher) for term in (match(), EmbeddingMatch(6, 10).double(), LogitMatch(I)))
    total.backward()
    assert teacher.given.grad is None
    assert teacher.logits.grad is None
    assert student.logits.grad is not None


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(UsageError, match="The temperature of logits must be above 0; got 0"):
        LogitMatch(I, temperature=0)


def test_projections_are_drawn_from_the_seed():
    one, two, other = match(seed=1), match(seed=1), match(seed=2)
    assert torch.equal(one.projection.weight, two.projection.weight)
    assert not torch.equal(one.projection.weight, other.projection.weight)
    assert one.projection.weight.abs().max() <= 6**-0.5


def test_looking_at_the_mapping_changes_nothing(views):
    student, teacher = views
    term = match()
    term.train()
    before = {name: value.clone() for name, value in term.state_dict().items()}
    plan = term.mapping(student, teacher, batch().query)
    assert plan.shape == (S, L)
    torch.testing.assert_close(plan.sum(1), term.student_mass)
    torch.testing.assert_close(plan.sum(0), term.teacher_mass)
    assert all(torch.equal(value, before[name]) for name, value in term.state_dict().items())
