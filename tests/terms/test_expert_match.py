"""DE's term against a plain loop over experts; its size, its temperatures and its draws."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill import rng
from recdistill.clock import Clock, constant, exponential
from recdistill.data.batches import InteractionBatches
from recdistill.data.synthetic import planted
from recdistill.errors import MissingKnowledge, UsageError
from recdistill.methods import Setting
from recdistill.methods.de import DE, expert_terms
from recdistill.models.neumf import NeuMF
from recdistill.query import Batch, Query
from recdistill.teachers.live import Live
from recdistill.terms.base import FromInteractions
from recdistill.terms.expert_match import ExpertMatch
from recdistill.terms.mixture import Experts, mixture


def make(side="user", *, temperature=1.0, experts=3, **changes) -> ExpertMatch:
    schedule = constant(temperature) if isinstance(temperature, float) else temperature
    return ExpertMatch(
        side,
        student_dim=4,
        teacher_dim=12,
        temperature=schedule,
        experts=experts,
        **({"seed": 6, "dropped": 0.0} | changes),
    )


def expert(term: ExpertMatch, m: int, x: torch.Tensor) -> torch.Tensor:
    """E_m(x) = W2 relu(W1 x + b1) + b2, the m-th of the stacked networks."""
    h = term.w1.shape[0] // term.experts
    own = slice(m * h, (m + 1) * h)
    return torch.relu(x @ term.w1[own].T + term.b1[own]) @ term.w2[own] + term.b2[m]


def naive(term: ExpertMatch, target, x, ids, *, tau: float = 1.0, side: str = "user", clock: Clock) -> torch.Tensor:
    """Sheet section 2, points 1 to 4, one entity and one expert at a time."""
    out = []
    for row in range(len(ids)):
        alpha = torch.softmax(term.gate_weight @ target[row] + term.gate_bias, 0)
        key = rng.key(6, f"gumbel {side}", clock.epoch, clock.step)
        noise = rng.gumbel(key, ids[row : row + 1], term.experts)[0]
        s = torch.softmax((torch.log(alpha + 1e-10) + noise) / tau, 0)
        built = sum(s[m] * expert(term, m, x[row]) for m in range(term.experts))
        out.append((target[row] - built).square().sum())
    return torch.stack(out)


def run(term, world, batch, clock=None):
    return term(world.student.view(batch.query), world.teacher.view(batch.query), batch, clock or Clock())


@pytest.mark.parametrize("tau", [1.0, 0.1])
def test_users_equal_a_plain_loop_over_experts_each_user_once(world, tau):
    term, clock = make(temperature=tau), Clock(3, 2)
    rows = run(term, world, world.batch([5, 2, 5, 9]), clock)
    ids = torch.tensor([2, 5, 9])
    want = naive(term, world.teacher.model.user[ids], world.student.user[ids], ids, tau=tau, clock=clock)
    assert rows.of == "users"
    torch.testing.assert_close(rows.value, want)


def test_an_item_counts_half_for_each_role_it_plays(world):
    term = make("item")
    batch = Batch(Query(torch.tensor([0, 1, 2])), torch.tensor([7, 7, 3]), torch.tensor([[3, 3], [8, 9], [9, 8]]))
    rows = run(term, world, batch)
    ids = torch.tensor([3, 7, 8, 9])  # 3 is positive and negative; 7 positive; 8 and 9 negative
    each = naive(term, world.teacher.model.item[ids], world.student.item[ids], ids, side="item", clock=Clock())
    assert rows.of == "items"
    torch.testing.assert_close(rows.value, each * torch.tensor([1.0, 0.5, 0.5, 0.5]))


def test_one_call_for_items_equals_the_official_two_calls_at_a_half_in_expectation(world):
    # sheet 2.5: 1/2 sum over distinct positives + 1/2 sum over distinct negatives, each with its own noise
    term = make("item")
    batch = Batch(Query(torch.arange(4)), torch.tensor([1, 2, 3, 3]), torch.tensor([[3], [4], [4], [1]]))
    roles = [torch.tensor([1, 2, 3]), torch.tensor([1, 3, 4])]
    ours, theirs = [], []
    with torch.no_grad():
        for step in range(600):
            ours.append(run(term, world, batch, Clock(0, step)).value.sum())
            halves = []
            for call, ids in enumerate(roles):
                target, x = world.teacher.model.item[ids], world.student.item[ids]
                weights = term.weights(target, ids, Clock(1 + call, step))
                built = mixture(x, weights, Experts(term.w1, term.b1, term.w2, term.b2))
                halves.append(0.5 * (target - built).square().sum())
            theirs.append(sum(halves))
    ours, theirs = torch.stack(ours), torch.stack(theirs)
    error = math.sqrt((ours.var() + theirs.var()).item() / len(ours))
    assert abs((ours.mean() - theirs.mean()).item()) < 4 * error


def test_the_plain_norm_is_the_root_of_the_squared_one(world):
    batch = world.batch([1, 2, 3])
    squared, plain = (run(make(norm=norm), world, batch).value for norm in ("squared", "plain"))
    torch.testing.assert_close(plain, squared.sqrt())


def test_gradients_equal_those_of_the_plain_loop(world):
    term = make()
    ids = torch.tensor([2, 5])
    rows = run(term, world, world.batch([5, 2]))
    names, leaves = zip(*[*term.named_parameters(), ("student", world.student.user)], strict=True)
    got = torch.autograd.grad(rows.value.sum(), leaves)
    slow = naive(term, world.teacher.model.user[ids], world.student.user[ids], ids, clock=Clock())
    for name, one, other in zip(names, got, torch.autograd.grad(slow.sum(), leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)


def test_sizes_are_those_of_the_log():
    # CiteULike, 200 -> 20, M = 30, both sides: gates 2 * 30 * (200 + 1) = 12,060;
    # an expert 20 * 110 + 110 + 110 * 200 + 200 = 24,510, sixty of them 1,470,600
    both = [ExpertMatch(side, student_dim=20, teacher_dim=200, temperature=constant(1.0)) for side in ("user", "item")]
    gates = sum(p.numel() for term in both for name, p in term.named_parameters() if name.startswith("gate"))
    experts = sum(p.numel() for term in both for name, p in term.named_parameters() if not name.startswith("gate"))
    assert gates == 12_060
    assert experts == 1_470_600


def test_the_hidden_width_is_halfway_or_half_of_equal_widths():
    def hidden(student: int, teacher: int) -> int:
        term = ExpertMatch("user", student_dim=student, teacher_dim=teacher, temperature=constant(1.0), experts=1)
        return term.w1.shape[0]

    assert [hidden(20, 200), hidden(100, 200), hidden(200, 200), hidden(3, 6), hidden(1, 1)] == [110, 150, 100, 4, 1]


def test_initial_values_are_those_of_a_linear_layer():
    term = ExpertMatch("user", student_dim=20, teacher_dim=200, temperature=constant(1.0))
    for p, fan_in in ((term.w1, 20), (term.b1, 20), (term.w2, 110), (term.b2, 110), (term.gate_weight, 200)):
        assert p.abs().max().item() == pytest.approx(1 / math.sqrt(fan_in), rel=0.01)
        assert p.mean().abs().item() < 0.1 / math.sqrt(fan_in)


def test_the_temperature_falls_as_in_section_2_6():
    tau = exponential(1.0, 1e-10, 1000, lag=1)
    assert [tau(Clock(epoch)) for epoch in (0, 1)] == [1.0, 1.0]
    wanted = {10: 0.81, 51: 0.32, 101: 0.10, 201: 0.01, 253: 0.003}
    for epoch, value in wanted.items():
        assert tau(Clock(epoch)) == pytest.approx(10 ** (-(epoch - 1) / 100))
        assert tau(Clock(epoch)) == pytest.approx(value, rel=0.02)
    assert tau(Clock(1001)) == tau(Clock(5000)) == pytest.approx(1e-10)


def test_weights_are_soft_sum_to_one_and_harden_as_tau_falls(world):
    target, ids = world.teacher.model.user, torch.arange(20)
    hardest = []
    for tau in (10.0, 1.0, 0.1, 0.001):
        weights = make(temperature=tau).weights(target, ids, Clock())
        torch.testing.assert_close(weights.sum(1), torch.ones(20))
        hardest.append(weights.amax(1).mean().item())
    assert hardest == sorted(hardest)
    assert hardest[-1] == pytest.approx(1, abs=1e-3)


def test_noise_is_a_function_of_seed_side_epoch_step_and_entity(world):
    target, ids = world.teacher.model.user, torch.arange(20)
    term = make()
    weights = term.weights(target, ids, Clock(1, 1))
    torch.testing.assert_close(term.weights(target[[7, 3]], ids[[7, 3]], Clock(1, 1)), weights[[7, 3]])
    for other in (Clock(2, 1), Clock(1, 2)):
        assert not torch.allclose(term.weights(target, ids, other), weights)


def test_a_single_expert_needs_no_selection(world):
    term = make(experts=1)
    assert (term.weights(world.teacher.model.user, torch.arange(20), Clock()) == 1).all()
    ids = torch.tensor([4])
    rows = run(term, world, world.batch([4]))
    want = (world.teacher.model.user[ids] - expert(term, 0, world.student.user[ids])).square().sum(1)
    torch.testing.assert_close(rows.value, want)


@pytest.mark.parametrize("tau", [0.1, 0.01])
def test_leaving_out_light_experts_changes_the_loss_by_less_than_one_in_ten_thousand(world, tau):
    # the bar of the issue, at the temperatures where routing begins; 30 experts as published
    clock = Clock(1, 1)
    full = make(temperature=tau, experts=30, dropped=0.0)
    routed = make(temperature=tau, experts=30, dropped=1e-2)
    batch = world.batch(list(range(20)))
    one, other = (run(term, world, batch, clock).value.sum().item() for term in (full, routed))
    assert abs(one - other) / one < 1e-4


def test_the_teacher_gets_no_gradient_and_the_student_does(world):
    run(make(), world, world.batch([1, 2])).value.sum().backward()
    assert world.teacher.model.user.grad is None
    assert world.student.user.grad[[1, 2]].abs().sum() > 0
    assert (world.student.user.grad[[0, 3]] == 0).all()


def test_wrong_arguments_are_refused(world):
    with pytest.raises(UsageError, match=r"DE needs experts >= 1; got 0\."):
        make(experts=0)
    batch = world.batch([1])
    with pytest.raises(MissingKnowledge, match="No teacher cannot give vectors"):
        make()(world.student.view(batch.query), None, batch, Clock())


def test_of_neumf_a_pair_of_the_student_can_be_matched_with_that_of_the_teacher():
    log = planted(users=20, items=15, interactions=120, seed=1)
    student, net = (NeuMF(log.n_users, log.n_items, dim=dim, seed=dim) for dim in (4, 6))
    batches = InteractionBatches(log, size=256, seed=1, device=torch.device("cpu"))
    teacher = Live(net, seen=log.csr())
    setting = Setting(student, batches, FromInteractions("bce"), batches.taken, log.n_users, 1, teacher)
    view = teacher.view(Query(torch.arange(3)))
    for layer, width in ((0, 6), ("served", 12)):
        term = expert_terms(DE(layer=0, teacher_layer=layer), setting)["de_users"][1]
        assert (term.w1.shape[1], term.w2.shape[1]) == (4, width)
        batch = next(batches.epoch(0))
        rows = term(student.view(batch.query), teacher.view(batch.query), batch, Clock())
        target = view.entities("user", batch.users.ids, layer)
        weights = term.weights(target, batch.users.ids, Clock())
        x = student.view(batch.query).entities("user", batch.users.ids, 0)
        built = sum(weights[:, m : m + 1] * torch.stack([expert(term, m, each) for each in x]) for m in range(30))
        torch.testing.assert_close(rows.value, (target - built).square().sum(1), rtol=1e-4, atol=1e-7)
