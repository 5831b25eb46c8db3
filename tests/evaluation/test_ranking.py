"""Rankers: exact lists, exact ranks, ties by row, and nothing that depends on the batch or the threads."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.csr import Csr
from recdistill.errors import DataError, UnknownName, UsageError
from recdistill.evaluation import blocks, topk
from recdistill.evaluation.ranking import PairNetRanker, VectorRanker, ranker

KINDS = ("vectors", "neumf", "deep neumf")


def arrays_of(kind, n_users=37, n_items=700, d=6, seed=0):
    """Random models over a rectangular catalogue; every fourth item is a copy of another, so that ties occur."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    twin = np.arange(n_items)
    twin[3::4] = rng.permutation(twin)[: len(twin[3::4])]
    twin[twin[twin] != twin] = 0
    if kind == "vectors":
        return {"user": normal(n_users, d), "item": normal(n_items, d)[twin]}
    layers = {"neumf": (d,), "deep neumf": (2 * d, d, 3)}[kind]
    made = {
        "user_mf": normal(n_users, d),
        "item_mf": normal(n_items, d)[twin],
        "user_mlp": normal(n_users, d),
        "item_mlp": normal(n_items, d)[twin],
        "out.weight": normal(1, d + layers[-1]),
        "out.bias": normal(1),
    }
    into = 2 * d
    for number, width in enumerate(layers):
        made[f"hidden.{number}.weight"], made[f"hidden.{number}.bias"] = normal(width, into), normal(width)
        into = width
    return made


def make(kind, threads=1, **sizes):
    return ranker(kind.split()[-1], arrays_of(kind, **sizes), threads=threads)


def dense(kind, arrays):
    """The naive twin: every score, in float64, rounded to float32."""
    a = {name: array.astype(np.float64) for name, array in arrays.items()}
    if kind == "vectors":
        return (a["user"] @ a["item"].T).astype(np.float32)
    n_users, n_items = len(a["user_mf"]), len(a["item_mf"])
    rows = []
    for u in range(n_users):
        x = np.concatenate([np.broadcast_to(a["user_mlp"][u], (n_items, a["user_mlp"].shape[1])), a["item_mlp"]], 1)
        layer = 0
        while f"hidden.{layer}.weight" in a:
            x = np.maximum(x @ a[f"hidden.{layer}.weight"].T + a[f"hidden.{layer}.bias"], 0)
            layer += 1
        both = np.concatenate([a["user_mf"][u] * a["item_mf"], x], axis=1)
        rows.append(both @ a["out.weight"][0] + a["out.bias"][0])
    return np.array(rows).astype(np.float32)


def naive_lists(scores, k, exclude=None):
    lists = np.full((len(scores), k), -1)
    for u, row in enumerate(scores):
        gone = set() if exclude is None else set(exclude.row(u).tolist())
        best = sorted((i for i in range(len(row)) if i not in gone), key=lambda i: (-row[i], i))[:k]
        lists[u, : len(best)] = best
    return lists


def random_rows(n_users, n_items, each, seed=1):
    rng = np.random.default_rng(seed)
    return Csr.from_pairs(
        np.repeat(np.arange(n_users), each), rng.integers(0, n_items, n_users * each), n_users, n_items
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 10, 200, 900])
def test_lists_equal_a_sort_of_every_score(kind, k):
    arrays = arrays_of(kind)
    exclude = random_rows(37, 700, 30)
    found = ranker(kind.split()[-1], arrays).top_k(np.arange(37), k, exclude)
    assert (found == naive_lists(dense(kind, arrays), k, exclude)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_count_greater_and_half_of_equal(kind):
    arrays = arrays_of(kind)
    scores = dense(kind, arrays)
    rng = np.random.default_rng(2)
    target = rng.integers(0, 700, 37)
    others = np.array([rng.choice(np.delete(np.arange(700), t), 99, replace=False) for t in target])
    others[5, 40:] = -1
    found = ranker(kind.split()[-1], arrays).ranks_among(np.arange(37), target, others.astype(np.int32))
    for u in range(37):
        rest = scores[u, others[u][others[u] >= 0]]
        mine = scores[u, target[u]]
        assert found[u] == 1 + (rest > mine).sum() + 0.5 * (rest == mine).sum()
    assert (found % 1 == 0.5).any()  # the copies did tie


@pytest.mark.parametrize("kind", KINDS)
def test_several_targets_are_each_ranked_by_themselves(kind):
    made = make(kind)
    users = np.array([3, 0, 36])
    target = np.array([[0, 9], [5, 7], [699, 1]])
    others = np.tile(np.arange(10, 410), (3, 1))
    both = made.ranks_among(users, target, others)
    assert both.shape == (3, 2)
    assert (both == np.stack([made.ranks_among(users, t, others) for t in target.T], axis=1)).all()


@pytest.mark.parametrize(("d", "n"), [(1, 1), (20, 499), (200, 499), (9000, 7), (20_000, 3)])
def test_many_and_wide_candidates_are_cut_for_the_product_and_rank_the_same(d, n):
    rng = np.random.default_rng(0)
    user, item = rng.normal(size=(2, d)).astype(np.float32), rng.normal(size=(n + 1, d)).astype(np.float32)
    others = np.tile(np.arange(1, n + 1), (2, 1))
    scores = (user.astype(np.float64) @ item.astype(np.float64).T).astype(np.float32)
    found = VectorRanker(user, item).ranks_among(np.arange(2), np.zeros(2, np.int64), others)
    assert (found == 1 + (scores[:, 1:] > scores[:, :1]).sum(axis=1)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_neither_batch_nor_block_nor_threads_change_an_answer(kind, monkeypatch):
    sizes = {"n_users": 90, "n_items": 2500}
    users = np.arange(90)
    target = users * 7
    others = (users[:, None] * 13 + np.arange(1, 60) * 11 + 1) % 2500
    others[others == target[:, None]] = -1
    exclude = random_rows(90, 2500, 25)
    first = make(kind, **sizes)
    lists, ranks = first.top_k(users, 20, exclude), first.ranks_among(users, target, others)
    scores = first.scores_of(users, lists)
    for threads, rows, depth, work, cut in (
        (2, 32, 16, 1 << 20, 90),
        (3, 4, 1, 64, 17),
        (1, 16, 3, 5000, 1),
        (2, 8, 2, 1, 31),
    ):
        monkeypatch.setattr(blocks, "_ROWS", (1, rows))
        monkeypatch.setattr(topk, "DEPTH", depth)
        monkeypatch.setattr(blocks, "_WORK", work)
        again = make(kind, threads=threads, **sizes)
        parts = [users[a : a + cut] for a in range(0, 90, cut)]
        assert (np.concatenate([again.top_k(p, 20, exclude) for p in parts]) == lists).all()
        assert (np.concatenate([again.ranks_among(p, target[p], others[p]) for p in parts]) == ranks).all()
        assert (np.concatenate([again.scores_of(p, lists[p]) for p in parts]) == scores).all()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 6),
    st.integers(1, 40),
    st.integers(1, 3),
    st.integers(1, 50),
    st.integers(0, 10**6),
    st.integers(1, 3),
)
def test_small_integers_tie_all_over_and_the_smaller_row_wins(n_users, n_items, d, k, seed, threads):  # noqa: PLR0917
    rng = np.random.default_rng(seed)
    user = rng.integers(-1, 2, (n_users, d)).astype(np.float32)
    item = rng.integers(-1, 2, (n_items, d)).astype(np.float32)
    exclude = Csr.from_pairs(rng.integers(0, n_users, 20), rng.integers(0, n_items, 20), n_users, n_items)
    found = VectorRanker(user, item, threads=threads).top_k(np.arange(n_users), k, exclude)
    assert (found == naive_lists(user @ item.T, k, exclude)).all()


def test_the_scores_behind_a_list_fall_and_are_the_exact_ones():
    arrays = arrays_of("vectors")
    made = VectorRanker(arrays["user"], arrays["item"])
    lists = made.top_k(np.arange(37), 50)
    scores = made.scores_of(np.arange(37), lists)
    assert scores.dtype == np.float32
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (scores == np.take_along_axis(dense("vectors", arrays), lists, axis=1)).all()


def test_copies_of_an_item_score_the_same_in_every_column():
    rng = np.random.default_rng(5)
    user = rng.normal(size=(40, 33)).astype(np.float32)
    item = np.repeat(
        rng.normal(size=(1, 33)).astype(np.float32), 777, axis=0
    )  # a block product would differ in last bits
    assert (VectorRanker(user, item).top_k(np.arange(40), 9) == np.arange(9)).all()
    ranks = VectorRanker(user, item).ranks_among(np.arange(40), np.full(40, 700), np.tile(np.arange(600), (40, 1)))
    assert (ranks == 301).all()  # 1 + 600 / 2


def test_a_user_of_zeros_gets_the_first_items_that_are_free():
    item = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    exclude = Csr.from_pairs([1, 1, 1], [0, 2, 3], 2, 50)
    found = VectorRanker(np.zeros((2, 4), np.float32), item).top_k(np.array([1, 0]), 4, exclude)
    assert found.tolist() == [[1, 4, 5, 6], [0, 1, 2, 3]]
    ranks = VectorRanker(np.zeros((2, 4), np.float32), item).ranks_among(
        np.array([0]), np.array([9]), np.array([[1, 2, 3]])
    )
    assert ranks.tolist() == [2.5]


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_does_not_have_gets_no_answer_and_no_error(kind):
    made = make(kind)
    queries = np.array([-1, 4, 37, 1000])
    lists = made.top_k(queries, 5)
    assert (lists[[0, 2, 3]] == -1).all()
    assert (lists[1] == made.top_k(np.array([4]), 5)).all()
    ranks = made.ranks_among(queries, np.zeros(4, np.int64), np.tile([1, 2, -1], (4, 1)))
    assert np.isinf(ranks[[0, 2, 3]]).all()
    assert 1 <= ranks[1] <= 3
    scores = made.scores_of(queries, np.array([[0], [-1], [0], [0]]))
    assert (scores == -np.inf).all()
    assert made.top_k(np.zeros(0, np.int64), 3).shape == (0, 3)
    assert made.scores_of(np.array([0]), np.zeros((1, 0), np.int64)).shape == (1, 0)


def test_a_list_ends_with_minus_one_when_the_catalogue_does():
    made = make("vectors", n_users=3, n_items=4)
    everything = Csr.from_pairs([1] * 4 + [2], [0, 1, 2, 3, 1], 3, 4)
    found = made.top_k(np.arange(3), 6, everything)
    assert (found[0, 4:] == -1).all()
    assert sorted(found[0, :4].tolist()) == [0, 1, 2, 3]
    assert (found[1] == -1).all()
    assert sorted(found[2, :3].tolist()) == [0, 2, 3]
    assert (found[2, 3:] == -1).all()


@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_vector_that_is_not_finite_is_an_error_that_names_its_row(side, bad):
    arrays = arrays_of("vectors")
    arrays[side][3, 2] = bad
    made = VectorRanker(arrays["user"], arrays["item"])
    for ask in (
        lambda: made.top_k(np.array([1, 3]), 2),
        lambda: made.ranks_among(np.array([1, 3]), np.array([0, 0]), np.array([[1], [1]])),
        lambda: made.scores_of(np.array([1, 3]), np.array([[0], [0]])),
    ):
        with pytest.raises(DataError, match=f"The vector of {side} row 3 is not made of finite numbers"):
            ask()


def test_a_network_that_is_not_finite_is_an_error():
    arrays = arrays_of("neumf")
    arrays["user_mlp"][2, 0] = np.nan
    with pytest.raises(DataError, match="user row 2 are not finite"):
        PairNetRanker(arrays).top_k(np.array([0, 2]), 3)
    arrays["hidden.0.bias"][0] = np.inf
    with pytest.raises(DataError, match=r"'hidden.0.bias' holds a number that is not finite"):
        PairNetRanker(arrays)


def test_mistakes_are_named():
    made = make("vectors")
    with pytest.raises(UsageError, match="`k` must be at least 1; got 0"):
        made.top_k(np.array([0]), 0)
    with pytest.raises(UsageError, match=r"`exclude` must have a row for every user asked.*\(37, 700\)"):
        made.top_k(np.array([0]), 3, Csr.empty(37, 701))
    with pytest.raises(UsageError, match="`exclude` must have a row for every user"):
        made.top_k(np.array([9]), 3, Csr.empty(9, 700))
    with pytest.raises(UsageError, match="vector of user rows; got 'float64 of shape"):
        made.top_k(np.array([0.5]), 3)
    with pytest.raises(UsageError, match=r"A target is not an item row; got 700\. Allowed: 0 to 699"):
        made.ranks_among(np.array([0]), np.array([700]), np.array([[1]]))
    with pytest.raises(UsageError, match="A candidate is not an item row; got -2"):
        made.ranks_among(np.array([0]), np.array([7]), np.array([[-2]]))
    with pytest.raises(UsageError, match=r"\(Q,\) or \(Q, t\) targets and \(Q, n\) others"):
        made.ranks_among(np.array([0]), np.array([7]), np.array([1]))
    with pytest.raises(UsageError, match="at least one thread; got 0"):
        make("vectors", threads=0)
    with pytest.raises(UnknownName, match=r"Unknown kind of ranker 'vector'. Did you mean 'vectors'\?"):
        ranker("vector", {})
    with pytest.raises(DataError, match=r"array 'item' is missing\. Allowed: user"):
        ranker("vectors", {"user": np.zeros((1, 2), np.float32)})
    with pytest.raises(DataError, match=r"must be \(U, d\) and \(I, d\)"):
        VectorRanker(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))
    arrays = arrays_of("neumf")
    arrays["out.weight"] = arrays["out.weight"][:, 1:]
    with pytest.raises(DataError, match=r"'out.weight' is of the wrong shape.*Allowed: \(1, 12\)"):
        PairNetRanker(arrays)


def test_threads_follow_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert make("vectors", threads=None).threads == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert make("vectors", threads=None).threads >= 1


def test_buffers_are_made_once_and_used_again():
    made = make("vectors", n_users=200)
    made.top_k(np.arange(200), 5)
    kept = {shape: [id(s) for s in idle] for shape, idle in made._idle.items()}
    made.top_k(np.arange(200), 5)
    assert {shape: [id(s) for s in idle] for shape, idle in made._idle.items()} == kept
    assert [len(v) for v in kept.values()] == [1]


def test_no_torch_is_imported():
    code = (
        "import sys, recdistill.evaluation.ranking, recdistill.evaluation.metrics, recdistill.evaluation.compare;"
        "import recdistill.evaluation.evaluate;"
        "assert not {'torch', 'polars', 'pandas', 'scipy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
