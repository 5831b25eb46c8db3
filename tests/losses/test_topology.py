"""Topologies against plain loops over pairs; golden values, gradients, invariances."""

from __future__ import annotations

import pytest
import torch

from recdistill.losses.topology import between_prototypes, full_topology, to_prototypes, within_groups


def draw(n=9, t=5, s=3, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, t, generator=g, dtype=dtype), torch.randn(n, s, generator=g, dtype=dtype)


def cosine(a, b):
    return torch.nn.functional.cosine_similarity(a, b, dim=0)


GROUP = torch.tensor([0, 2, 0, 0, 4, 2, 4, 0, 4])  # groups 1 and 3 are empty; sizes 4, 2, 3


def test_a_case_by_hand():
    # teacher (1,0), (0,1): cosine 0; student (1,0), (3,4): cosine .6; each row sees the other: .36
    teacher, student = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    assert full_topology(teacher, student).tolist() == pytest.approx([0.36, 0.36])
    group = torch.tensor([0, 0])
    assert within_groups(teacher, student, group, pairs="all").tolist() == pytest.approx([0.36, 0.36])
    assert within_groups(teacher, student, group, pairs="positive").tolist() == [0, 0]  # the teacher's cosine is 0
    # means (.5, .5) and (2, 2): cos to the teacher's .7071 both; to the student's .7071 and (6+8)/(5*2.8284) = .98995
    want = [0.0, (0.707107 - 0.989949) ** 2]
    assert to_prototypes(teacher, student, group, groups=1).tolist() == pytest.approx(want, abs=1e-6)


def test_the_full_topology_is_the_plain_sum_over_pairs():
    t, x = draw()
    want = [sum((cosine(t[i], t[j]) - cosine(x[i], x[j])) ** 2 for j in range(9)) for i in range(9)]
    torch.testing.assert_close(full_topology(t, x), torch.stack(want))


@pytest.mark.parametrize("pairs", ["positive", "all"])
def test_groups_are_the_plain_sum_over_their_pairs(pairs):
    t, x = draw()
    want = torch.zeros(9, dtype=torch.float64)
    for i in range(9):
        for j in range(9):
            of_teacher = cosine(t[i], t[j])
            if GROUP[i] == GROUP[j] and (pairs == "all" or of_teacher > 0):
                want[i] += (of_teacher - cosine(x[i], x[j])) ** 2
    torch.testing.assert_close(within_groups(t, x, GROUP, pairs=pairs), want)


@pytest.mark.parametrize("own", ["kept", "left-out"])
def test_prototypes_are_means_and_an_entity_meets_each(own):
    t, x = draw()
    want = torch.zeros(9, dtype=torch.float64)
    for k in (0, 2, 4):
        of_t, of_x = t[k == GROUP].mean(0), x[k == GROUP].mean(0)
        for i in range(9):
            if own == "kept" or GROUP[i] != k:
                want[i] += (cosine(of_t, t[i]) - cosine(of_x, x[i])) ** 2
    torch.testing.assert_close(to_prototypes(t, x, GROUP, groups=6, own=own), want)


def test_prototypes_among_themselves():
    t, x = draw()
    means = [(t[k == GROUP].mean(0), x[k == GROUP].mean(0)) for k in (0, 2, 4)]
    want = [sum((cosine(a, c) - cosine(b, d)) ** 2 for c, d in means) for a, b in means]
    found = between_prototypes(t, x, GROUP, groups=5)
    torch.testing.assert_close(found[[0, 2, 4]], torch.stack(want))
    assert found[[1, 3]].tolist() == [0, 0]


LOSSES = {
    "full": full_topology,
    "within": lambda t, x: within_groups(t, x, GROUP),
    "all": lambda t, x: within_groups(t, x, GROUP, pairs="all"),
    "between": lambda t, x: between_prototypes(t, x, GROUP, groups=5),
}
EVERY = LOSSES | {"prototypes": lambda t, x: to_prototypes(t, x, GROUP, groups=5)}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_pass_a_finite_difference_check(name):
    t, x = draw()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](t, x), (x.requires_grad_(),))


def test_gradients_to_prototypes_are_those_with_the_means_held_still():
    t, x = draw()
    x.requires_grad_()
    (got,) = torch.autograd.grad(to_prototypes(t, x, GROUP, groups=5).sum(), x)
    still = {k: (t[k == GROUP].mean(0), x[k == GROUP].mean(0).detach()) for k in (0, 2, 4)}
    plain = sum((cosine(p, t[i]) - cosine(q, x[i])) ** 2 for p, q in still.values() for i in range(9))
    torch.testing.assert_close(got, torch.autograd.grad(plain, x)[0])


@pytest.mark.parametrize("name", EVERY)
def test_lengths_and_turns_of_either_space_change_nothing(name):
    t, x = draw()
    turn = torch.linalg.qr(draw(3, 3, 3, seed=8)[0])[0]
    one = EVERY[name](t, x)
    torch.testing.assert_close(EVERY[name](4 * t, (x @ turn) * 0.3), one)
    assert EVERY[name](t, torch.cat([t @ torch.linalg.qr(draw(5, 5)[0])[0]], 1)).abs().max() < 1e-9, "0 at equality"


@pytest.mark.parametrize("name", ["full", "within", "all", "prototypes"])
def test_permuting_entities_permutes_values(name):
    t, x = draw()
    place = torch.tensor([4, 0, 8, 2, 6, 1, 3, 7, 5])
    turned = {
        "full": lambda: full_topology(t[place], x[place]),
        "within": lambda: within_groups(t[place], x[place], GROUP[place]),
        "all": lambda: within_groups(t[place], x[place], GROUP[place], pairs="all"),
        "prototypes": lambda: to_prototypes(t[place], x[place], GROUP[place], groups=5),
    }
    torch.testing.assert_close(turned[name](), EVERY[name](t, x)[place])


@pytest.mark.parametrize("name", ["full", "all", "prototypes"])
def test_whom_the_teacher_does_not_know_is_related_to_nobody(name):
    t, x = draw()
    t[3] = 0
    whole = EVERY[name](t, x)
    assert whole[3] == 0
    moved = x.clone()
    moved[3] = 100 * moved[3] + 5
    torch.testing.assert_close(EVERY[name](t, moved), whole)
