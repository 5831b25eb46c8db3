"""Recommending after histories: what is read, what is left out, who gets the popular list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data.csr import Csr
from recdistill.data.histories import Histories
from recdistill.errors import DataError, UsageError
from recdistill.evaluation.ranking import PairNetRanker, VectorRanker
from recdistill.ids import IdTable
from recdistill.serve import Item, Service
from recdistill.serve.histories import brought

# Users a, b; items i0 .. i4 with vectors 0 .. 4, of one dimension. The encoder gives the row of the last item, less 2:
# after i3 and i4 items rank i4 i3 i2 i1 i0, after i0 and i1 the other way round, and after i2 all score 0.
# a did i1 then i4, b nothing. Popular: i2, i0.
USERS, ITEMS = IdTable.from_ids(["a", "b"]), IdTable.from_ids([f"i{n}" for n in range(5)])
STORED = Histories(np.array([0, 2, 2]), np.array([1, 4], np.int32))
SEEN = Csr.from_pairs([0, 0], [1, 4], 2, 5)
POPULAR = np.array([2, 0])
ITEM = np.arange(5, dtype=np.float32)[:, None]


def encode(histories, rows):
    return (histories.items[histories.indptr[rows + 1] - 1] - 2)[:, None].astype(np.float32)


@pytest.fixture
def service():
    ranker = VectorRanker(np.zeros((2, 1), np.float32), ITEM)
    return Service(ranker, USERS, ITEMS, SEEN, POPULAR, encode=encode, histories=STORED)


def ids(told):
    return {user: [item.id for item in items] for user, items in told}


def test_visitors_are_answered_after_what_they_did(service):
    told = service.recommend_after([["i0", "i3"], ["i3", "i0"]], k=3)
    assert told.to_dict() == {
        0: [Item("i4", 4.0), Item("i2", 2.0), Item("i1", 1.0)],
        1: [Item("i1", -2.0), Item("i2", -4.0), Item("i4", -8.0)],
    }
    assert set(told.source) == {"model"}


def test_new_items_follow_what_is_stored_of_a_known_user_and_both_are_left_out(service):
    told = service.recommend_after({"a": ["i0"], "b": ["i0"], "c": ["i0"]})
    assert ids(told) == {"a": ["i2", "i3"], "b": ["i1", "i2", "i3", "i4"], "c": ["i1", "i2", "i3", "i4"]}


def test_a_known_user_without_new_items_is_answered_from_what_is_stored(service):
    assert ids(service.recommend_after({"a": []})) == {"a": ["i3", "i2", "i0"]}


def test_who_did_nothing_gets_the_popular_list(service):
    told = service.recommend_after({"b": [], "c": ["i9"]}, k=2)
    assert ids(told) == {"b": ["i2", "i0"], "c": ["i2", "i0"]}
    assert set(told.source) == {"popular"}
    assert told.notes == ("histories: 1 of 1 items are not in the catalogue and were ignored",)


def test_nothing_is_left_out_when_not_wanted(service):
    assert ids(service.recommend_after({"a": ["i3"]}, k=5, filter_seen=False)) == {"a": ["i4", "i3", "i2", "i1", "i0"]}


def test_candidates_and_exclusions_hold_here_too(service):
    assert ids(service.recommend_after([["i4"]], exclude=["i3"])) == {0: ["i2", "i1", "i0"]}
    assert ids(service.recommend_after({"a": ["i3"], "b": ["i3"]}, k=2, exclude={"b": ["i4"]})) == {
        "a": ["i2", "i0"],
        "b": ["i2", "i1"],
    }
    assert ids(service.recommend_after([["i4"]], candidates=["i4", "i1", "i3"])) == {0: ["i3", "i1"]}


def test_equal_scores_come_in_order_of_item_row(service):
    assert ids(service.recommend_after([["i2"]])) == {0: ["i0", "i1", "i3", "i4"]}


def test_no_history_at_all_is_an_empty_answer(service):
    assert len(service.recommend_after([])) == 0
    assert len(service.recommend_after({})) == 0


def test_known_users_are_answered_as_before(service):
    assert ids(service.recommend(["a"], k=2)) == {"a": ["i0", "i2"]}


@pytest.mark.parametrize("wrong", ["i1", "abc", 5, {1, 2}])
def test_what_is_no_list_of_histories_is_refused(service, wrong):
    with pytest.raises(UsageError, match="'histories' must be a list of histories"):
        service.recommend_after(wrong)


def test_ids_in_place_of_histories_are_refused_with_the_remedy(service):
    with pytest.raises(UsageError, match=r"'histories' must be a sequence of ids; got 'i1'\. Put a single id into"):
        service.recommend_after(["i1", "i2"])
    with pytest.raises(DataError):
        service.recommend_after([[1.5]])


def test_other_libraries_names_are_answered_with_ours(service):
    with pytest.raises(UsageError, match=r"has no argument 'remove_seen'.*Did you mean 'filter_seen'"):
        service.recommend_after([["i1"]], remove_seen=True)


def test_a_model_that_reads_no_histories_says_what_would():
    plain = Service(VectorRanker(np.zeros((2, 1), np.float32), ITEM), USERS, ITEMS, SEEN, POPULAR)
    with pytest.raises(UsageError, match=r"holds no encoder. Save a sequential model \(sasrec"):
        plain.recommend_after([["i1"]])


def test_histories_of_other_users_are_refused():
    ranker = VectorRanker(np.zeros((2, 1), np.float32), ITEM)
    with pytest.raises(UsageError, match="not as many histories as users; got 1"):
        Service(ranker, USERS, ITEMS, SEEN, POPULAR, histories=Histories(np.array([0, 0]), np.zeros(0, np.int32)))


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.lists(st.sampled_from(["i0", "i1", "i4", "x"]))))
def test_what_is_brought_is_that_of_a_plain_loop(asked):
    found = brought(asked, USERS, ITEMS, STORED)
    seen = found.seen(SEEN)
    for place, (user, items) in enumerate(asked.items()):
        row = int(USERS.rows([user])[0])
        want = [*(STORED.row(row).tolist() if row >= 0 else []), *(int(i[1:]) for i in items if i != "x")]
        assert found.histories.row(place).tolist() == want
        assert seen.row(place).tolist() == sorted({*want, *(SEEN.row(row).tolist() if row >= 0 else [])})
    assert found.ignored == sum(i == "x" for items in asked.values() for i in items)


def test_a_ranker_for_others_shares_what_is_ready_of_the_items():
    ranker = VectorRanker(np.zeros((2, 1), np.float32), ITEM)
    other = ranker.asked_by(np.array([[1], [-1], [1]], np.float32))
    assert other._packed is ranker._packed
    assert other.top_k(np.arange(3), 2).tolist() == [[4, 3], [0, 1], [4, 3]]
    assert not isinstance(other, PairNetRanker)
