"""Candidates of the sampled protocol: who may be drawn, how often, and what is recorded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data import candidates
from recdistill.data.candidates import Candidates, draw
from recdistill.data.csr import Csr
from recdistill.data.interactions import HeldOut, Interactions, Split
from recdistill.errors import DataError, UsageError
from recdistill.ids import IdTable


def split_of(owned, n_items) -> Split:
    """A split in which each user has the items of `owned`: the first is test, the second valid, the rest train."""
    users, items = IdTable.from_ids(np.arange(len(owned))), IdTable.from_ids(np.arange(n_items))

    def csr(part):
        rows = [u for u, mine in enumerate(owned) for _ in mine[part]]
        return Csr.from_pairs(rows, [i for mine in owned for i in mine[part]], len(owned), n_items)

    train, valid, test = csr(slice(2, None)), csr(slice(1, 2)), csr(slice(0, 1))
    user = np.repeat(np.arange(len(owned), dtype=np.int32), train.degrees)
    return Split(
        train=Interactions(users, items, user, train.indices),
        valid=HeldOut("valid", users, items, valid, train),
        test=HeldOut("test", users, items, test, train.union(valid)),
        how="given",
        seed=0,
    )


@settings(max_examples=60)
@given(
    st.lists(st.sets(st.integers(0, 19), max_size=20), min_size=1, max_size=6), st.integers(1, 25), st.integers(0, 5)
)
def test_candidates_are_distinct_and_never_the_users_own(owned, n, seed):
    drawn = draw(split_of([sorted(mine) for mine in owned], 20), n, seed)
    assert drawn.items.shape == (len(owned), n)
    for mine, row in zip(owned, drawn.items.tolist(), strict=True):
        real = [i for i in row if i >= 0]
        assert len(set(real)) == len(real) == min(n, 20 - len(mine))
        assert not set(real) & mine
        assert row[len(real) :] == [-1] * (n - len(real))


@pytest.mark.parametrize(("n_items", "n"), [(20, 4), (20, 15)])  # by rejection, and by choice among the free
def test_every_free_item_is_drawn_equally_often(n_items, n):
    owned = [[0, 1, 2]] * 3000
    counts = np.bincount(draw(split_of(owned, n_items), n).items.ravel(), minlength=n_items)
    expected = 3000 * n / 17
    assert counts[:3].tolist() == [0, 0, 0]
    assert np.abs(counts[3:] - expected).max() < 5 * np.sqrt(expected)


def test_blocks_and_other_users_change_nothing(monkeypatch):
    owned = [[u % 50, (u * 7 + 1) % 50, (u * 3 + 2) % 50] for u in range(40)]
    whole = draw(split_of(owned, 50), 12, seed=4)
    monkeypatch.setattr(candidates, "_BLOCK", 64)
    assert (draw(split_of(owned, 50), 12, seed=4).items == whole.items).all()
    assert (draw(split_of(owned[:10], 50), 12, seed=4).items == whole.items[:10]).all()
    assert (draw(split_of(owned, 50), 12, seed=5).items != whole.items).any()


def test_draws_that_fall_short_are_drawn_longer():
    # n = 100 of 200 free: the first width, 128, holds about 95 distinct ones, so most users are drawn again
    drawn = draw(split_of([[0, 1, 2]] * 30, 203), 100)
    assert (drawn.items >= 3).all()
    assert all(len(set(row)) == 100 for row in drawn.items.tolist())


def test_what_is_saved_is_what_is_loaded(tmp_path):
    drawn = draw(split_of([[0, 1, 2], [3, 4, 5]], 30), 5, seed=9)
    drawn.save(tmp_path / "c.npz")
    again = Candidates.load(tmp_path / "c.npz")
    assert (again.items == drawn.items).all()
    assert (again.n, again.seed, again.digest) == (5, 9, drawn.digest)
    assert [f.name for f in tmp_path.iterdir()] == ["c.npz"]
    assert len(drawn.digest) == 64


def test_a_changed_file_is_refused(tmp_path):
    drawn = draw(split_of([[0, 1, 2]], 30), 5)
    path = tmp_path / "c.npz"
    np.savez(path, items=drawn.items + 1, seed=0, digest=drawn.digest)
    with pytest.raises(DataError, match=r"The digest of .* does not match its content"):
        Candidates.load(path)
    path.write_bytes(b"PK no")
    with pytest.raises(DataError, match=r"holds no candidates"):
        Candidates.load(path)
    with pytest.raises(DataError, match=r"holds no candidates"):
        Candidates.load(tmp_path / "absent.npz")


def test_the_drawn_numbers_do_not_change_between_versions():
    drawn = draw(split_of([[0, 1, 2], [3, 4, 5]], 1000), 5, seed=1)
    assert drawn.items.tolist() == GOLDEN
    assert draw(split_of([[0, 1, 2]], 8), 6, seed=1).items.tolist() == GOLDEN_CROWDED


def test_none_at_all_is_refused():
    with pytest.raises(UsageError, match=r"number of candidates must be at least 1; got 0"):
        draw(split_of([[0, 1, 2]], 30), 0)


GOLDEN = [[753, 10, 709, 146, 130], [515, 314, 89, 394, 343]]
GOLDEN_CROWDED = [[5, 4, 3, 7, 6, -1]]
