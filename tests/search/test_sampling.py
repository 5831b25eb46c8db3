"""One architecture a step: what is drawn, and what alpha's gradient is."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill import rng
from recdistill.clock import Clock, constant
from recdistill.errors import UsageError
from recdistill.search.cells import Chain
from recdistill.search.sampling import Architecture, Choice, annealed, straight_through


def architecture(space, *, tau=1.0, cells=2, seed=5, depth=False, shared=True):
    return Architecture(space, cells=cells, temperature=constant(tau), seed=seed, depth=depth, shared=shared)


def perturbed(one, clock, tau=1.0, seed=5):
    """z, from the formula."""
    rows = torch.arange(one.alpha.numel() // one.alpha.shape[-1])
    noise = rng.gumbel(rng.key(seed, "operators", clock.epoch, clock.step), rows, one.alpha.shape[-1])
    return (one.alpha.log_softmax(-1) + noise.view(one.alpha.shape)) / tau


def test_alpha_begins_near_uniform_and_is_shared(causal):
    one = architecture(causal)
    assert one.alpha.shape == (1, 6, 10)
    assert 0.005 < one.alpha.std().item() < 0.02
    assert one.entropy() == pytest.approx(math.log(10), abs=1e-3)
    assert architecture(causal, shared=False).alpha.shape == (2, 6, 10)


def test_the_temperature_falls_in_steps_to_its_floor():
    # 0.8^5 at epoch 25, 0.8^10 at 50, as the sheet has it; no floor in the official code: 0.8^20 = 0.0115 at 100
    official = annealed(floor=0.0)
    assert [round(official(Clock(epoch)), 4) for epoch in (0, 4, 5, 25, 50, 100)] == [1, 1, 0.8, 0.3277, 0.1074, 0.0115]
    assert annealed()(Clock(100)) == 0.2


def test_a_sample_is_a_function_of_seed_epoch_and_step(causal):
    one, two = architecture(causal, depth=True), architecture(causal, depth=True)
    for clock in (Clock(0, 0), Clock(3, 7)):
        assert one.sample(clock).paths == two.sample(clock).paths
        assert one.sample(clock).depths == two.sample(clock).depths
    assert len({one.sample(Clock(0, step)).paths for step in range(20)}) == 20
    assert one.sample(Clock(1, 0)).paths != one.sample(Clock(0, 1)).paths
    assert one.sample(Clock()).paths != architecture(causal, seed=6).sample(Clock()).paths


def test_operators_are_drawn_by_their_probabilities(causal):
    one = architecture(causal)
    with torch.no_grad():
        one.alpha.zero_()
        one.alpha[..., 3] = math.log(9.0)  # 9 / (9 + 9) = 1/2, the others 1/18 each
    firsts = [edge[0] for step in range(200) for edge in one.sample(Clock(0, step)).paths[0]]
    assert firsts.count(3) / len(firsts) == pytest.approx(0.5, abs=0.06)  # 4 standard errors of 1200 draws
    assert firsts.count(0) / len(firsts) == pytest.approx(1 / 18, abs=0.03)


def test_gates_are_one_hot_in_value_and_softmax_in_gradient():
    z = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    c = torch.randn(4, 5, dtype=torch.float64)
    gates = straight_through(z)
    assert torch.equal(gates.detach().round(), torch.nn.functional.one_hot(z.argmax(-1), 5).double())
    (ours,) = torch.autograd.grad((gates * c).sum(), z)
    (soft,) = torch.autograd.grad((z.softmax(-1) * c).sum(), z)
    torch.testing.assert_close(ours, soft)


@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_with_all_operators_the_gradient_is_the_soft_gumbel_softmax_formula(causal, x, tau):
    """d loss / d alpha by the chain rule: <g_e, output_eo> d softmax(z)_eo / d alpha, edge by edge, cell by cell."""
    states, real = x[0].double(), x[1]
    chain, one = Chain.supernet(causal, width=8, cells=1).double().eval(), architecture(causal, tau=tau, cells=1)
    c = torch.randn(5, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    choice = one.sample(Clock(), paths=10)
    (ours,) = torch.autograd.grad((chain(states, real, choice).output * c).sum(), one.alpha)
    # the same by hand: the gates as leaves give <g_e, output_eo> exactly, for the network is linear in each of them
    order = torch.tensor(choice.paths)
    leaf = torch.zeros(1, 6, 10, dtype=torch.float64)
    leaf[..., 0] = 1
    leaf.requires_grad_()
    (products,) = torch.autograd.grad(
        (chain(states, real, Choice(choice.paths, leaf, whole=True)).output * c).sum(), leaf
    )
    soft = perturbed(one, Clock(), tau).softmax(-1).double()
    expected = torch.autograd.grad((soft * torch.zeros_like(products).scatter(-1, order, products)).sum(), one.alpha)[0]
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_with_two_operators_it_is_the_same_over_the_two_greatest(causal, x):
    states, real = x[0].double(), x[1]
    chain, one = Chain.supernet(causal, width=8, cells=1).double().eval(), architecture(causal, cells=1)
    c = torch.randn(5, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    both, full = one.sample(Clock(), paths=2), one.sample(Clock(), paths=10)
    assert [edge[:2] for edge in full.paths[0]] == list(both.paths[0])
    (ours,) = torch.autograd.grad((chain(states, real, both).output * c).sum(), one.alpha)
    leaf = torch.zeros(1, 6, 10, dtype=torch.float64)
    leaf[..., 0] = 1
    leaf.requires_grad_()
    (products,) = torch.autograd.grad(
        (chain(states, real, Choice(full.paths, leaf, whole=True)).output * c).sum(), leaf
    )
    soft = perturbed(one, Clock()).gather(-1, torch.tensor(both.paths)).softmax(-1).double()  # over the two alone
    (expected,) = torch.autograd.grad((soft * products[..., :2]).sum(), one.alpha)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_as_the_temperature_falls_two_operators_tell_what_all_tell(causal, x):
    states, real = x
    chain = Chain.supernet(causal, width=8, cells=1).eval()
    c = torch.randn(5, 9, 8, generator=torch.Generator().manual_seed(5))

    def apart(tau):
        one = architecture(causal, tau=tau, cells=1)
        grads = [
            torch.autograd.grad((chain(states, real, one.sample(Clock(), paths=p)).output * c).sum(), one.alpha)[0]
            for p in (2, 10)
        ]
        return ((grads[0] - grads[1]).norm() / grads[1].norm()).item()

    assert apart(0.05) < 0.1 < apart(1.0)


def test_the_number_of_paths_does_not_change_the_value(causal, x):
    states, real = x
    chain, one = Chain.supernet(causal, width=8, cells=2).eval(), architecture(causal)
    values = [chain(states, real, one.sample(Clock(), paths=p)).output for p in (1, 2, 3, 10)]
    for value in values[1:]:
        torch.testing.assert_close(value, values[0])


@pytest.mark.parametrize("paths", [2, 11])
def test_only_what_was_sampled_gets_gradients_and_statistics(attentive, x, paths):
    states, real = x
    chain, one = Chain.supernet(attentive, width=8, cells=2), architecture(attentive)
    choice = one.sample(Clock(), paths=paths)
    chain(states, real, choice).output.square().sum().backward()
    for cell in chain.cells:
        for edge, operators in enumerate(cell.edges):
            sampled = attentive.names[choice.paths[0][edge][0]]
            for name, operator in operators.items():
                for parameter in operator.parameters():
                    assert (parameter.grad is not None) == (name == sampled)
                if hasattr(operator, "norm"):
                    assert operator.norm.seen == (name == sampled)


def test_only_what_was_asked_is_computed(causal, x):
    states, real = x
    chain, one = Chain.supernet(causal, width=8, cells=2), architecture(causal)
    asked = []
    for cell in chain.cells:
        for operators in cell.edges:
            for name, operator in operators.items():
                operator.register_forward_hook(lambda *_, name=name: asked.append(name))
    choice = one.sample(Clock(), paths=2)
    chain(states, real, choice)
    assert sorted(asked) == sorted(2 * [causal.names[path] for edge in choice.paths[0] for path in edge])


def test_one_path_tells_alpha_nothing(causal, x):
    states, real = x
    chain, one = Chain.supernet(causal, width=8, cells=1), architecture(causal, cells=1)
    (gradient,) = torch.autograd.grad(
        chain(states, real, one.sample(Clock(), paths=1)).output.square().sum(), one.alpha
    )
    assert (gradient == 0).all()


def test_depth_is_sampled_and_learned(causal, x):
    states, real = x
    chain = Chain.supernet(causal, width=8, cells=4, depth=True).eval()
    one = architecture(causal, cells=4, depth=True)
    seen = set()
    for step in range(30):
        choice = one.sample(Clock(0, step))
        out = chain(states, real, choice)
        assert out.layers.shape[0] == choice.depths[0]
        fixed = chain(
            states, real, Choice(tuple(tuple(e[:1] for e in g) for g in choice.paths), depths=choice.depths[:1])
        )
        torch.testing.assert_close(out.output, fixed.output)
        seen.add(choice.depths[0])
    assert seen == {1, 2, 3, 4}
    (gradient,) = torch.autograd.grad((out.output * torch.randn(5, 9, 8)).sum(), one.depth)
    assert set((gradient.abs() > 1e-4).nonzero()[:, 0].tolist()) == {depth - 1 for depth in choice.depths}
    assert gradient.sum().item() == pytest.approx(0, abs=1e-5)
    assert choice.depth_gates.detach().sum().item() == pytest.approx(1)


def test_the_best_architecture_is_the_arg_max(causal):
    one = architecture(causal, cells=4, depth=True)
    with torch.no_grad():
        for edge in range(6):
            one.alpha[0, edge, edge] = 1.0
        one.depth[2] = 1.0
    assert one.best().paths == (((0,), (1,), (2,), (3,), (4,), (5,)),)
    assert one.best().depths == (3,)


@pytest.mark.parametrize("paths", [0, 11])
def test_a_number_of_paths_that_is_no_number_of_operators_is_refused(causal, paths):
    with pytest.raises(UsageError, match=f"`paths` must be a number of operators; got {paths}. Allowed: 1 to 10"):
        architecture(causal).sample(Clock(), paths=paths)
