"""FTD's and HTD's terms: whose vectors, which groups."""

from __future__ import annotations

import pytest
import torch

from recdistill.clock import Clock, constant
from recdistill.losses.topology import full_topology, to_prototypes, within_groups
from recdistill.terms.expert_match import ExpertMatch
from recdistill.terms.topology import FullTopology, GroupTopology


def run(term, world, batch):
    return term(world.student.view(batch.query), world.teacher.view(batch.query), batch, Clock())


def entities(world, batch):
    users, items = batch.users.ids, batch.items.ids
    teacher, student = world.teacher.model, world.student
    return (
        torch.cat([teacher.user[users], teacher.item[items]]),
        torch.cat([student.user[users], student.item[items]]),
    )


def test_entities_are_the_distinct_users_and_the_union_of_positives_and_negatives(world):
    batch = world.batch([5, 2, 5, 9])
    rows = run(FullTopology(), world, batch)
    assert rows.of == "pairs"
    assert FullTopology.scope == "batch"
    torch.testing.assert_close(rows.value, full_topology(*entities(world, batch)))


@pytest.mark.parametrize("own", ["kept", "left-out"])
def test_groups_are_the_selections_first_choice_users_and_items_apart(world, own):
    users, items = (
        ExpertMatch(side, student_dim=4, teacher_dim=12, temperature=constant(1.0), experts=3, seed=4, roles="once")
        for side in ("user", "item")
    )
    batch = world.batch([5, 2, 5, 9, 0, 1, 13])
    rows = run(GroupTopology(users, items, own=own), world, batch)
    t, x = entities(world, batch)
    n = len(batch.users.ids)
    group = torch.cat(
        [
            (t[:n] @ users.gate_weight.T + users.gate_bias).argmax(1),
            3 + (t[n:] @ items.gate_weight.T + items.gate_bias).argmax(1),
        ]
    )
    assert len(group[:n].unique()) > 1
    torch.testing.assert_close(rows.value, within_groups(t, x, group) + to_prototypes(t, x, group, groups=6, own=own))


def test_the_topology_owns_no_parameter_of_the_experts(world):
    users, items = (
        ExpertMatch(side, student_dim=4, teacher_dim=12, temperature=constant(1.0), experts=3)
        for side in ("user", "item")
    )
    assert list(GroupTopology(users, items).parameters()) == []


def test_an_item_counts_once_where_roles_do_not_matter(world):
    half, once = (
        ExpertMatch("item", student_dim=4, teacher_dim=12, temperature=constant(1.0), experts=3, roles=roles)
        for roles in ("half", "once")
    )
    batch = world.batch([5, 2, 5, 9])
    share = batch.items.share
    torch.testing.assert_close(run(half, world, batch).value, share * run(once, world, batch).value)
