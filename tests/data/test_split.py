"""Splits, worked by hand, and what they promise of every log."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data.interactions import Interactions
from recdistill.data.split import HOWS, split
from recdistill.errors import DataError, UnknownName, UsageError
from recdistill.ids import IdTable


def log_of(user, item, *, timestamp=None, part=None) -> Interactions:
    return Interactions(
        users=IdTable.from_ids(np.arange(max(user) + 1)),
        items=IdTable.from_ids(np.arange(max(item) + 1)),
        user=np.array(user, np.int32),
        item=np.array(item, np.int32),
        timestamp=None if timestamp is None else np.array(timestamp, np.int64),
        split=None if part is None else np.array(part, np.int8),
    )


def pairs(csr):
    return sorted((u, int(i)) for u in range(csr.n_rows) for i in csr.row(u))


@st.composite
def logs(draw, repeats=False):
    """Logs with times (many ties) and a split column, every user with 1 to 12 interactions."""
    user, item = [], []
    for u in range(draw(st.integers(1, 5))):
        mine = draw(st.lists(st.integers(0, 14), min_size=1, max_size=12, unique=not repeats))
        user += [u] * len(mine)
        item += mine
    order = draw(st.permutations(range(len(user))))
    user, item = [user[i] for i in order], [item[i] for i in order]
    timestamp = draw(st.lists(st.integers(0, 3), min_size=len(user), max_size=len(user)))
    part = draw(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=len(user), max_size=len(user)))
    return log_of(user, item, timestamp=timestamp, part=part)


def split_or_none(log, how, **options):
    try:
        return split(log, how, **options)
    except DataError as error:
        assert "leaves nothing" in str(error)  # noqa: PT017 - every other message is a fault
        return None


def test_the_last_is_test_and_the_last_but_one_valid_by_time():
    #            row: 0  1  2  3  4  5 ; user 1 has two interactions and keeps them
    log = log_of([0, 0, 1, 0, 0, 1], [0, 1, 2, 3, 4, 5], timestamp=[9, 1, 5, 9, 3, 6])
    parts = split(log, "leave-last-out")
    # user 0 in time: i1 (1), i4 (3), i0 (9, row 0), i3 (9, row 3): the tie goes by the order of the log
    assert pairs(parts.test.targets) == [(0, 3)]
    assert pairs(parts.valid.targets) == [(0, 0)]
    assert parts.train.item.tolist() == [1, 2, 4, 5]
    assert pairs(parts.valid.seen) == [(0, 1), (0, 4), (1, 2), (1, 5)]
    assert pairs(parts.test.seen) == [(0, 0), (0, 1), (0, 4), (1, 2), (1, 5)]
    assert parts.test.queries.tolist() == [0]
    assert (parts.train.n_users, parts.train.n_items) == (2, 6)
    assert parts.notes == (
        "Split leave-last-out: train 4, valid 1, test 1",
        "1 users with fewer than 3 interactions keep all of them in train",
        "1 valid targets are items that never occur in train",
        "1 test targets are items that never occur in train",
    )


def test_without_times_the_order_of_the_log_counts():
    parts = split(log_of([0, 0, 0], [2, 0, 1]))
    assert (pairs(parts.test.targets), pairs(parts.valid.targets)) == ([(0, 1)], [(0, 0)])
    assert "The log has no times: last means last in the order of the log" in parts.notes


def test_a_share_of_each_user_is_rounded_to_the_nearest():
    # users with 10, 4 and 3 interactions; test 0.3 -> 3, 1.2 -> 1, 0.9 -> 1; valid 0.125 -> 1.25 -> 1, 0.5 -> 1, 0
    user = [0] * 10 + [1] * 4 + [2] * 3
    parts = split(log_of(user, [*range(10), *range(4), *range(3)]), "ratio", valid=0.125, test=0.3, seed=3)
    assert parts.test.targets.degrees.tolist() == [3, 1, 1]
    assert parts.valid.targets.degrees.tolist() == [1, 1, 0]


def test_a_share_that_rounds_to_nothing_is_said():
    parts = split(log_of([0] * 3 + [1] * 10, [*range(3), *range(10)]), "ratio")
    assert parts.test.targets.degrees.tolist() == [0, 1]
    assert "1 users have too few interactions for a share of 0.1: no test interaction" in parts.notes


def test_the_last_share_of_the_whole_log_is_test_by_time():
    log = log_of([0, 1, 0, 1, 0, 1, 0, 1, 0, 1], range(10), timestamp=[5, 5, 1, 2, 9, 5, 8, 0, 7, 5])
    # in time: rows 7 2 3 | ties at 5: rows 0 1 5 9 | 8 6 4; the last 2 of 10 are test, the 2 before them valid
    parts = split(log, "time", valid=0.2, test=0.2)
    assert pairs(parts.test.targets) == [(0, 4), (0, 6)]
    assert pairs(parts.valid.targets) == [(0, 8), (1, 9)]
    assert parts.train.item.tolist() == [0, 1, 2, 3, 5, 7]


def test_the_given_split_is_kept_and_repeats_are_noted():
    log = log_of([0, 0, 0, 1], [0, 1, 0, 2], part=[0, 1, 2, 0])
    parts = split(log, "given")
    assert (pairs(parts.valid.targets), pairs(parts.test.targets)) == ([(0, 1)], [(0, 0)])
    assert (
        sum(note.startswith("1 test pairs also occur earlier: a ranking that leaves out") for note in parts.notes) == 1
    )
    assert parts.train.split is None


@given(logs(), st.sampled_from(HOWS), st.integers(0, 3))
def test_every_interaction_goes_to_exactly_one_part(log, how, seed):
    parts = split_or_none(log, how, seed=seed)
    if parts is None:
        return
    train, valid, test = pairs(parts.train.csr()), pairs(parts.valid.targets), pairs(parts.test.targets)
    assert sorted(train + valid + test) == sorted(zip(log.user.tolist(), log.item.tolist(), strict=True))
    assert len(parts.train) == len(train)
    assert pairs(parts.valid.seen) == train
    assert pairs(parts.test.seen) == sorted(train + valid)
    for part in (parts.train, parts.valid, parts.test):
        assert part.users is log.users
        assert part.items is log.items


@given(logs(), st.sampled_from(["leave-last-out", "leave-random-out", "ratio"]), st.integers(0, 3))
def test_splits_by_user_leave_everyone_something_to_train_on(log, how, seed):
    parts = split_or_none(log, how, seed=seed)
    if parts is None:
        return
    assert (parts.train.csr().degrees[np.unique(log.user)] > 0).all()
    few = np.bincount(log.user, minlength=log.n_users) < 3
    assert parts.test.targets.degrees[few].sum() == parts.valid.targets.degrees[few].sum() == 0
    if how != "ratio":
        enough = (~few).astype(int).tolist()
        assert parts.test.targets.degrees.tolist() == enough
        assert parts.valid.targets.degrees.tolist() == enough


@given(logs(), st.sampled_from(["leave-last-out", "time"]), st.randoms())
def test_the_order_of_the_log_matters_only_within_ties(log, how, random):
    ties = {}
    for row in range(len(log)):
        ties.setdefault(int(log.timestamp[row]), []).append(row)
    # permute whole groups of ties, keeping the order within each
    groups = list(ties.values())
    random.shuffle(groups)
    moved = log.take(np.array([row for group in groups for row in group]))
    one, two = split_or_none(log, how), split_or_none(moved, how)
    assert (one is None) == (two is None)
    if one is not None:
        assert pairs(one.test.targets) == pairs(two.test.targets)
        assert pairs(one.valid.targets) == pairs(two.valid.targets)


@given(logs(repeats=True), st.sampled_from(HOWS))
def test_deduplicated_logs_never_have_a_target_in_train(log, how):
    parts = split_or_none(log.deduplicated(), how)
    if parts is not None:
        assert not set(pairs(parts.train.csr())) & set(pairs(parts.test.targets) + pairs(parts.valid.targets))
        assert not any("also occur earlier" in note for note in parts.notes)


def test_the_seed_decides_a_random_split():
    log = log_of([u for u in range(20) for _ in range(10)], [i for _ in range(20) for i in range(10)])
    for how in ("leave-random-out", "ratio"):
        one, same, other = (pairs(split(log, how, seed=s).test.targets) for s in (1, 1, 2))
        assert one == same
        assert one != other
    drawn = [split(log, "leave-random-out", seed=s).test.targets.indices for s in range(200)]
    counts = np.bincount(np.concatenate(drawn), minlength=10)  # 4,000 draws, 400 an item, deviation 19
    assert counts.min() > 300
    assert counts.max() < 500


def test_it_unpacks_into_its_parts():
    parts = split(log_of([0, 0, 0], [2, 0, 1]))
    train, valid, test = parts
    assert (train, valid, test) == (parts.train, parts.valid, parts.test)
    assert repr(parts) == "Split(leave-last-out: train 1, valid 1, test 1)"
    assert repr(test) == "HeldOut(test: 1 targets of 1 users)"


def test_what_cannot_be_split_is_named():
    log = log_of([0, 0, 0], [0, 1, 2])
    with pytest.raises(UnknownName, match=r"Unknown split 'leave-last'. Did you mean 'leave-last-out'?"):
        split(log, "leave-last")
    with pytest.raises(
        DataError,
        match=r"no split column, so its split cannot be 'given'.*columns=\{'split': ...\} \(--set data.columns.split=",
    ):
        split(log, "given")
    with pytest.raises(DataError, match=r"no times to split by.*leave-last-out"):
        split(log, "time")
    with pytest.raises(UsageError, match=r"valid \+ test < 1"):
        split(log, "ratio", valid=0.5, test=0.5)
    with pytest.raises(UsageError, match=r"takes no min_history; got 5"):
        split(log, "time", min_history=5)
    with pytest.raises(UsageError, match=r"min_history must be at least 3; got 2"):
        split(log, min_history=2)
    with pytest.raises(DataError, match=r"leaves nothing for the test"):
        split(log_of([0, 1], [0, 1]))
    with pytest.raises(DataError, match=r"leaves nothing to train on"):
        split(log_of([0, 1], [0, 1], part=[2, 2]), "given")


def test_a_longer_history_can_be_asked_for():
    log = log_of([0] * 4 + [1] * 3, [0, 1, 2, 3, 0, 1, 2])
    assert split(log, min_history=4).test.targets.degrees.tolist() == [1, 0]
