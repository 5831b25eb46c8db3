"""Availability: what may be shown now, obeyed by the search and by the popular list."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.data.csr import Csr
from recdistill.errors import UsageError
from recdistill.evaluation.vectors import VectorRanker
from recdistill.ids import IdTable
from recdistill.serve.service import Service


@pytest.fixture
def service() -> Service:
    """The score of item i for every user is i, and u0 has seen 9; popular: i3, i1."""
    user, item = np.ones((2, 1), np.float32), np.arange(10, dtype=np.float32)[:, None]
    ids = IdTable.from_ids(["u0", "u1"]), IdTable.from_ids([f"i{n}" for n in range(10)])
    seen = Csr.from_pairs([0], [9], 2, 10)
    return Service(
        VectorRanker(user, item), *ids, seen, np.array([3, 1]), trained=Csr.from_pairs([0, 1, 0], [9, 4, 3], 2, 10)
    )


def listed(service, users, **more):
    told = service.recommend(users, k=3, **more)
    return [[item.id for item in items] for _, items in told]


def test_lists_hold_available_items_alone(service):
    free = Service(service.ranker, service.users, service.items, service.seen, service.popular)
    here = free.with_available(["i9", "i2", "i7", "i0", "nothing of ours"])
    assert listed(here, ["u0", "u1"]) == [["i7", "i2", "i0"], ["i9", "i7", "i2"]]
    assert listed(free, ["u1"]) == [["i9", "i8", "i7"]]  # the service it came from is as it was
    assert (here.n_available, free.n_available, here.with_available(None).n_available) == (4, 10, 10)


def test_an_item_that_nothing_was_learned_of_stays_hidden(service):
    assert listed(service, ["u0", "u1"]) == [["i4", "i3"], ["i9", "i4", "i3"]]
    assert listed(service.with_available(["i9", "i3", "i2"]), ["u0", "u1"]) == [["i3"], ["i9", "i3"]]


def test_unknown_users_get_the_popular_that_are_available_then_the_others(service):
    assert listed(service.with_available(["i8", "i1", "i5"]), ["nobody"]) == [["i1", "i5", "i8"]]


def test_candidates_and_exclusions_go_with_it(service):
    free = Service(service.ranker, service.users, service.items, service.seen, service.popular)
    here = free.with_available(["i9", "i2", "i7"])
    assert listed(here, ["u1", "nobody"], candidates=["i2", "i8", "i9"]) == [["i9", "i2"], ["i2", "i9"]]
    assert listed(here, ["u1"], exclude=["i9"]) == [["i7", "i2"]]


def test_a_list_without_any_item_of_the_catalogue_is_refused(service):
    with pytest.raises(UsageError, match="None of the items that may be shown is in the catalogue"):
        service.with_available(["x", "y"])
