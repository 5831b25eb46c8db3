"""Batches of histories: an epoch is every window once; order and draws depend on (seed, epoch) alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.data.interactions import Interactions
from recdistill.data.sequences import ClozeBatches, SequenceBatches, StagedBatches
from recdistill.errors import TrainingError, UsageError
from recdistill.ids import IdTable
from recdistill.query import MASK

CPU = torch.device("cpu")
ITEMS = 30


def log(rows: list[list[int]]) -> Interactions:
    return Interactions(
        users=IdTable.from_ids(np.arange(len(rows))),
        items=IdTable.from_ids(np.arange(ITEMS)),
        user=np.repeat(np.arange(len(rows)), [len(r) for r in rows]).astype(np.int32),
        item=np.array([i for row in rows for i in row], np.int32),
    )


def many(seed: int = 0) -> Interactions:
    draw = np.random.default_rng(seed)
    return log([draw.integers(0, ITEMS, draw.integers(0, 15)).tolist() for _ in range(40)])


def batches(kind=SequenceBatches, train=None, **changes):
    return kind(train or many(), **({"length": 6, "size": 7, "seed": 3, "device": CPU} | changes))


def labels(made) -> list[tuple[int, ...]]:
    """(user, what is known so far ..., label, negatives ...) of every asked position."""
    out = []
    for b in made:
        for (q, t), item, drawn in zip(b.query.at.tolist(), b.positive.tolist(), b.negatives.tolist(), strict=True):
            known = tuple(i for i in b.query.history[q, : t + 1].tolist() if i != -1)
            out.append((int(b.query.row[q]), known, item, tuple(drawn)))
    return sorted(out)


def test_a_batch_worked_by_hand():
    # histories 1 2 3 4, 5, 6 7 8: T = 2 reads the last three of each; a history of one item has nothing to guess
    (batch,) = batches(train=log([[1, 2, 3, 4], [5], [6, 7, 8]]), length=2, size=9).epoch(0)
    order = batch.query.row.argsort()
    assert batch.query.row[order].tolist() == [0, 2]
    assert batch.query.history[order].tolist() == [[2, 3], [6, 7]]
    assert labels([batch]) == [(0, (2,), 3, ()), (0, (2, 3), 4, ()), (2, (6,), 7, ()), (2, (6, 7), 8, ())]
    assert not batch.query.both_ways


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_epoch_holds_every_label_once(size):
    train = many()
    histories = train.histories()
    want = sorted(
        (u, tuple(row[max(end - 6, 0) : end]), row[end])
        for u in range(histories.n_rows)
        for row in [histories.row(u).tolist()[-7:]]
        for end in range(1, len(row))
    )
    made = batches(size=size, train=train)
    found = list(made.epoch(0))
    assert len(found) == len(made)
    assert [each[:3] for each in labels(found)] == want


def test_all_windows_leave_out_nothing_but_what_windows_begin_with():
    train = many()
    made = labels(batches(train=train, every=True).epoch(0))
    cut = train.histories().windows(7, every=True)
    assert len(made) == (cut.stop - cut.start - 1).sum()
    assert len(cut) > len(train.histories().windows(7))


def test_the_size_of_batches_changes_nothing_in_what_an_epoch_holds():
    one, other = (labels(batches(size=size, negatives=2).epoch(4)) for size in (3, 16))
    assert one == other


def test_a_seed_and_an_epoch_give_one_epoch():
    def flat(made):
        return [(b.query.row.tolist(), b.negatives.tolist(), b.query.key) for b in made]

    assert flat(batches(negatives=1).epoch(2)) == flat(batches(negatives=1).epoch(2))
    assert flat(batches(negatives=1).epoch(2)) != flat(batches(negatives=1).epoch(3))
    assert flat(batches(negatives=1).epoch(2)) != flat(batches(negatives=1, seed=4).epoch(2))


@pytest.mark.parametrize("kind", [SequenceBatches, ClozeBatches])
@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_starting_later_goes_on_where_a_stopped_epoch_was(kind, start):
    whole, rest = (list(batches(kind).epoch(1, start=s)) for s in (0, start))
    for one, other in zip(whole[start:], rest, strict=True):
        assert torch.equal(one.query.history, other.query.history)
        assert (one.query.key, one.positive.tolist()) == (other.query.key, other.positive.tolist())


def test_negatives_are_items_the_user_does_not_have_with_their_chance():
    train = many()
    for b in batches(train=train, negatives=5).epoch(0):
        user = b.query.row[b.query.at[:, 0]].numpy()
        assert not train.csr().contains(user[:, None], b.negatives.numpy()).any()
        free = ITEMS - train.csr().degrees[user]
        np.testing.assert_allclose(b.log_q[:, 0], -np.log(free), rtol=1e-6)


def test_a_cloze_text_hides_items_and_asks_for_them():
    train = many()
    histories = train.histories()
    for b in batches(ClozeBatches, train, share=0.3).epoch(0):
        assert b.query.both_ways
        for q, u in enumerate(b.query.row.tolist()):
            want = histories.row(u).tolist()[-6:]
            row = b.query.history[q].tolist()
            at = b.query.at[b.query.at[:, 0] == q, 1].tolist()
            assert at, "at least one item is asked for"
            shift = len(row) - len(want)
            assert row[:shift] == [-1] * shift
            for place, item in enumerate(want):
                assert row[shift + place] == item or shift + place in at, "what is not asked for is told"
            answers = b.positive[b.query.at[:, 0] == q].tolist()
            assert answers == [want[place - shift] for place in at]


def test_shares_of_a_cloze_text_are_those_asked_for():
    train = log([[(7 * u + 3 * i) % ITEMS for i in range(50)] for u in range(400)])
    made = batches(ClozeBatches, train, length=50, size=400, share=0.4, swapped=0.2, kept=0.3)
    (b,) = made.epoch(0)
    shown = b.query.history[b.query.at[:, 0], b.query.at[:, 1]]
    n = len(shown)
    assert n / (400 * 50) == pytest.approx(0.4, abs=0.015)
    assert (shown == MASK).sum().item() / n == pytest.approx(0.5, abs=0.025)
    assert (shown == b.positive).sum().item() / n == pytest.approx(0.3 + 0.2 / ITEMS, abs=0.025)
    again = next(made.epoch(1))
    assert again.query.at.tolist() != b.query.at.tolist(), "every epoch hides others"


def test_stages_follow_each_other():
    first, then = batches(ClozeBatches), batches()
    staged = StagedBatches(first, then, epochs=2)
    assert len(staged) == len(first) == len(then)
    assert [next(staged.epoch(e)).query.both_ways for e in range(4)] == [True, True, False, False]
    assert len(list(staged.epoch(3, start=2))) == len(staged) - 2


@pytest.mark.parametrize("kind", [SequenceBatches, ClozeBatches])
def test_what_cannot_be_learned_from_is_refused(kind):
    with pytest.raises(TrainingError, match=r"no history of at least 2 items to learn from \(the longest has 1\)"):
        batches(kind, log([[1], [2], []]))
    with pytest.raises(UsageError, match="batch size must be at least 1; got 0"):
        batches(kind, size=0)
    with pytest.raises(UsageError, match="negatives must be at least 0; got -1"):
        batches(kind, negatives=-1)


@pytest.mark.parametrize("bad", [{"share": 0}, {"share": 1.1}, {"kept": -0.1}, {"swapped": 0.6, "kept": 0.5}])
def test_shares_that_are_no_probabilities_are_refused(bad):
    with pytest.raises(UsageError, match="The shares of a Cloze text"):
        batches(ClozeBatches, **bad)
