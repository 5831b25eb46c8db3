"""Blocks of a stream: what each brings, what it holds out, and how ids grow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data.blocks import blocks, cleaned, halves, held_out, official, widened
from recdistill.data.interactions import Interactions
from recdistill.errors import DataError, UsageError
from recdistill.ids import IdTable


def log_of(rows, users=4, items=5):
    user, item, split = (np.array(column) for column in zip(*rows, strict=True))
    return Interactions(
        IdTable.from_ids(np.arange(users)),
        IdTable.from_ids(np.arange(items)),
        user.astype(np.int32),
        item.astype(np.int32),
        split=split.astype(np.int8),
    )


ROWS = [(0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 0, 0), (0, 3, 0), (2, 4, 0), (2, 0, 1), (2, 1, 2), (3, 4, 0)]
BLOCK = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])


def test_a_block_knows_everybody_so_far_and_what_was_known_before():
    first, second = blocks(log_of(ROWS), BLOCK)
    assert (first.n_users, first.n_items, first.old_users, first.old_items) == (2, 3, 0, 0)
    assert (second.n_users, second.n_items, second.old_users, second.old_items) == (4, 5, 2, 3)
    assert second.train.csr().row(1).tolist() == []
    assert second.train.csr().row(2).tolist() == [4]


def test_a_ranking_leaves_out_training_and_the_other_held_out_part_of_the_block_alone():
    first, second = blocks(log_of(ROWS), BLOCK)
    assert first.test.seen.row(0).tolist() == [0, 1]
    assert first.valid.seen.row(0).tolist() == [0, 2]
    assert second.test.seen.row(0).tolist() == [3], "what was had in an older block stays rankable"
    assert second.test.seen.row(2).tolist() == [0, 4]


def test_sizes_can_be_given_and_a_row_beyond_them_is_refused():
    first, _ = blocks(log_of(ROWS), BLOCK, users=(3, 4), items=(4, 5))
    assert (first.n_users, first.n_items) == (3, 4)
    with pytest.raises(DataError, match=r"Block 0 holds a item that is not known in it; got 2\."):
        blocks(log_of(ROWS), BLOCK, items=(2, 5))
    with pytest.raises(UsageError, match=r"A stream of 2 blocks needs as many sizes; got 1\."):
        blocks(log_of(ROWS), BLOCK, users=(3,))
    with pytest.raises(DataError, match="Block 0 of the stream is empty"):
        blocks(log_of(ROWS), BLOCK + 1)


def test_what_a_user_holds_out_is_a_tenth_and_at_least_one():
    # user 0 has 1 interaction (test), user 1 two (test, valid), user 2 ten (1, 1, 8), user 3 twenty (2, 2, 16)
    degrees = [1, 2, 10, 20]
    rows = [(u, i, 0) for u, n in enumerate(degrees) for i in range(n)]
    log = log_of(rows, users=4, items=20)
    part = held_out(log, seed=3)
    counts = [[int(((log.user == u) & (part == p)).sum()) for p in (0, 1, 2)] for u in range(4)]
    assert counts[2] == [8, 1, 1]
    assert counts[0] == [0, 0, 0], "one interaction is a test and nothing else, so the user leaves both parts"
    known = set(log.item[part == 0].tolist())
    assert set(log.item[part > 0].tolist()) <= known


def test_the_last_interactions_can_be_held_out():
    log = log_of([(0, i, 0) for i in range(10)] + [(1, i, 0) for i in range(10)], users=2, items=10)
    log = Interactions(log.users, log.items, log.user, log.item, timestamp=np.tile(np.arange(10), 2) * np.int64(7))
    part = held_out(log, how="last", share=0.2)
    # the last two would be test, the two before validation, but items 6 to 9 are then in nobody's training
    assert (part == [0, 0, 0, 0, 0, 0, -1, -1, -1, -1] * 2).all()


@given(st.integers(0, 50), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=1, max_size=60))
def test_whatever_is_held_out_can_be_found_and_every_user_has_both_parts(seed, pairs):
    log = log_of([(u, i, 0) for u, i in pairs], users=6, items=8)
    part = held_out(log, seed=seed)
    assert set(log.item[part > 0].tolist()) <= set(log.item[part == 0].tolist())
    assert set(log.user[part == 1].tolist()) == set(log.user[part == 2].tolist())


def test_a_cleaned_stream_holds_a_pair_once():
    rows = [
        (0, 0, 0),
        (0, 0, 2),
        (0, 1, 1),
        (0, 1, 2),
        (0, 2, 2),
        (1, 0, 0),
        (0, 0, 0),
        (0, 3, 0),
        (1, 0, 2),
        (1, 3, 2),
    ]
    first, second = cleaned(blocks(log_of(rows, users=2, items=4), np.array([0] * 6 + [1] * 4)))
    assert first.train.csr().row(0).tolist() == [0]
    assert first.test.targets.row(0).tolist() == [1, 2], "the test keeps what both held out"
    assert first.valid.targets.row(0).tolist() == []
    assert second.train.csr().row(0).tolist() == [3], "item 0 came back"
    assert second.test.targets.row(1).tolist() == [3]


def test_the_parts_of_a_block_are_its_interactions_each_once():
    first, _ = blocks(log_of(ROWS), BLOCK)
    parts = halves(first, 2)
    pairs = sorted((u, i) for part in parts for u, i in zip(part.user.tolist(), part.item.tolist(), strict=True))
    assert pairs == [(0, 0), (1, 0)]
    assert halves(first, 1) == (first.train,)
    with pytest.raises(UsageError, match="at least one and at most as many updates as interactions; got 3"):
        halves(first, 3)


def test_held_out_data_widens_and_does_not_shrink():
    first, second = blocks(log_of(ROWS), BLOCK)
    wide = widened(first.test, second.train.users, second.train.items)
    assert (wide.targets.n_rows, wide.targets.n_columns) == (4, 5)
    assert wide.queries.tolist() == first.test.queries.tolist()
    assert wide.targets.row(0).tolist() == first.test.targets.row(0).tolist()
    with pytest.raises(UsageError, match="Held-out data grows and does not shrink"):
        widened(second.test, first.train.users, first.train.items)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "train", "held", "known"),
    [
        ("ccd_gowalla", (417_977, 39_612, 79_722, 87_989, 90_369, 61_130), (47_409, 18_995), (29_858, 40_988)),
        ("ccd_yelp", (119_869, 33_032, 20_189, 20_056, 23_567, 21_291), (15_206, 11_501), (14_950, 12_261)),
    ],
)
def test_the_published_blocks_have_their_published_counts(data_dir, name, train, held, known):
    stream = official(data_dir(name))
    assert tuple(len(block.train) for block in stream) == train
    assert len(stream[0].test.queries) == held[1]
    assert (stream[-1].n_users, stream[-1].n_items) == known
    assert all(np.array_equal(block.test.queries, block.valid.queries) for block in stream)
    clean = cleaned(stream)
    if name == "ccd_gowalla":  # no pair twice, so nothing goes
        assert len(stream[0].test) == held[0]
        assert [len(b.train) for b in clean] == [len(b.train) for b in stream]
    else:
        both = np.intersect1d(stream[0].test.targets.keys, stream[0].train.csr().keys)
        assert len(both) == 589, "pairs in training and in the test of block 0"
        assert not np.isin(clean[0].test.targets.keys, clean[0].train.csr().keys).any()
