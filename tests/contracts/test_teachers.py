"""What all that can be a teacher promises: live models, files of lists, scores, vectors, bundles, callables, joins."""

from __future__ import annotations

import pytest
import torch

from recdistill.errors import MissingKnowledge
from recdistill.knowledge.view import Kind
from recdistill.query import Query
from recdistill.teachers.live import Live

USERS, ITEMS = 24, 37
NAMES = [
    "live mf",
    "live neumf",
    "live lightgcn",
    "live sasrec",
    "live nextitnet",
    "live bert4rec",
    "live gru4rec",
    "live cells",
    "lists",
    "scores",
    "vectors",
    "bundle",
    "callable",
    "joined",
]
ROWS = torch.tensor([4, 0, 23, 5])
ITEM_ROWS = torch.tensor([[1, 2], [9, 30], [7, 7], [36, 0]])
ASK = {
    Kind.SCORES: lambda view: view.scores(ITEM_ROWS),
    Kind.RANKS: lambda view: view.ranked(5),
    Kind.VECTORS: lambda view: view.entities("item", torch.tensor([2, 0])),
    Kind.STATES: lambda view: view.states(),
}
pytestmark = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def teacher(name, teachers):
    return teachers[name]


def test_all_live_models_are_here(name, teachers):
    assert set(NAMES) == set(teachers), "a new model or a new kind of teacher joins this list"


def test_only_a_live_model_gives_its_weights_which_no_view_is_asked_for(teacher):
    assert set(ASK) == set(Kind) - {Kind.WEIGHTS}
    assert (Kind.WEIGHTS in teacher.provides) == isinstance(teacher, Live)


@pytest.mark.parametrize("kind", ASK)
def test_it_answers_what_it_provides_and_refuses_the_rest_by_name(teacher, kind):
    view = teacher.view(Query(ROWS))
    if kind in teacher.provides:
        answer = ASK[kind](view)
        assert not answer.requires_grad
        assert answer.shape[kind is Kind.STATES] == (2 if kind is Kind.VECTORS else 4)
    else:
        with pytest.raises(MissingKnowledge, match=f"cannot give {kind}. Use a teacher that provides {kind}") as caught:
            ASK[kind](view)
        assert caught.value.kind == kind


def test_lists_hold_distinct_items_that_are_no_training_items(teacher, log):
    lists = teacher.view(Query(torch.arange(USERS))).ranked(ITEMS)
    assert lists.shape == (USERS, ITEMS)
    assert lists.dtype == torch.int64
    for u, row in enumerate(lists.tolist()):
        items = [i for i in row if i >= 0]
        assert row == items + [-1] * (ITEMS - len(items)), "nothing stands after the end"
        assert len(set(items)) == len(items)
        assert not set(items) & set(log.csr().row(u).tolist())


def test_a_longer_list_begins_with_the_shorter_one(teacher):
    view = teacher.view(Query(ROWS))
    assert torch.equal(view.ranked(20)[:, :7], view.ranked(7))


def test_scores_fall_along_the_lists(teacher):
    if Kind.SCORES not in teacher.provides:
        pytest.skip("no scores")
    view = teacher.view(Query(ROWS))
    lists = view.ranked(8)
    scores = view.scores(lists)
    assert (scores[:, 1:] <= scores[:, :-1] + 1e-5).all()


def test_queries_in_another_order_and_parts_are_answered_alike(teacher):
    order = torch.tensor([2, 0, 3, 1])
    whole, other = teacher.view(Query(ROWS)), teacher.view(Query(ROWS[order]))
    part = whole.select(order)
    assert torch.equal(whole.known()[order], part.known())
    for kind in sorted(teacher.provides & {Kind.RANKS, Kind.SCORES}):
        ask = (lambda v: v.ranked(6)) if kind is Kind.RANKS else (lambda v: v.scores(ITEM_ROWS[order]))
        torch.testing.assert_close(ask(part), ask(other))
    if Kind.RANKS in teacher.provides:
        assert torch.equal(whole.ranked(6)[order], part.ranked(6))


def test_nobody_is_unknown_and_has_no_list(teacher):
    view = teacher.view(Query(torch.tensor([-1, 4])))
    assert view.known().tolist() == [False, True]
    assert (view.ranked(4)[0] == -1).all()
    assert (view.ranked(4)[1] >= 0).all()
    empty = teacher.view(Query(torch.zeros(0, dtype=torch.int64)))
    assert empty.ranked(4).shape == (0, 4)


def test_the_user_a_file_lacks_is_unknown(name, teacher):
    if name in {"bundle", "callable"} or name.startswith("live"):
        pytest.skip("knows everybody")
    view = teacher.view(Query(torch.tensor([1, 2])))
    assert view.known().tolist() == [False, True]
    assert (view.ranked(4)[0] == -1).all()
    assert not (view.ranked(ITEMS) == 3).any(), "an item it does not know is on no list"


def test_vectors_of_what_it_lacks_are_marked(name, teacher):
    if Kind.VECTORS not in teacher.provides:
        pytest.skip("no vectors")
    there = teacher.view(Query(ROWS)).has("item", torch.tensor([3, 4, 3]))
    if name.startswith("live"):
        assert there is None
    else:
        assert there.tolist() == [False, True, False]


def test_a_fingerprint_names_the_knowledge(name, teacher, teachers):
    prints = {other: each.fingerprint for other, each in teachers.items()}
    assert prints[name] == teacher.fingerprint
    assert len(set(prints.values())) == len(prints)
